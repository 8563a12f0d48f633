"""Models as one function that calls all kernels, compiled ahead of time.

TVM's virtual machine takes part of a microsecond to make a tensor and to call a kernel, and threads
are started anew for each parallel loop: small models feel both.  Where all sizes are fixed nothing
is left to decide, so `main` asks one function for everything; where some are open, it is a session
that asks it, and gives it these sizes.
"""
