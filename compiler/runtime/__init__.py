"""An artifact in use: sessions, arrays that pass in and out, and where they lie."""
