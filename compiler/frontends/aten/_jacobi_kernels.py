"""Loop nests of Jacobi's methods, in float64, one matrix after another.

Sources: Golub and Van Loan, Matrix Computations, 4th edition: algorithm 8.5.3 (cyclic Jacobi) and
section 8.6.3 (one-sided Jacobi).
"""

# Eigenvalues in ascending order, and the vectors in columns.
SYMMETRIC = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many, n, n), "float64"), values: T.Buffer((many, n), "float64"),
    vectors: T.Buffer((many, n, n), "float64"),
):
    T.func_attr({"tirx.noalias": True})
    for matrix in T.serial(many):
        with T.sblock("symmetric"):
            b = T.axis.spatial(many, matrix)
            T.reads(x[b, 0:n, 0:n])
            T.writes(values[b, 0:n], vectors[b, 0:n, 0:n])
            a = T.alloc_buffer((n, n), "float64")
            r = T.alloc_buffer((4,), "float64")
            row = T.alloc_buffer((1,), "int32")
            for i, j in T.grid(n, n):
                a[i, j] = x[b, i, j]
                vectors[b, i, j] = T.if_then_else(i == j, T.float64(1), T.float64(0))
            for sweep in T.serial(sweeps):
                for p in T.serial(n):
                    for distance in T.serial(n - p - 1):
                        if a[p, p + 1 + distance] != T.float64(0):
                            r[0] = (a[p + 1 + distance, p + 1 + distance] - a[p, p]) / (
                                T.float64(2) * a[p, p + 1 + distance]
                            )
                            r[1] = T.float64(1) / (
                                T.abs(r[0]) + T.sqrt(r[0] * r[0] + T.float64(1))
                            )
                            if r[0] < T.float64(0):
                                r[1] = T.float64(0) - r[1]
                            r[0] = T.float64(1) / T.sqrt(r[1] * r[1] + T.float64(1))
                            r[1] = r[1] * r[0]
                            for k in T.serial(n):
                                r[2] = a[k, p]
                                r[3] = a[k, p + 1 + distance]
                                a[k, p] = r[0] * r[2] - r[1] * r[3]
                                a[k, p + 1 + distance] = r[1] * r[2] + r[0] * r[3]
                            for k in T.serial(n):
                                r[2] = a[p, k]
                                r[3] = a[p + 1 + distance, k]
                                a[p, k] = r[0] * r[2] - r[1] * r[3]
                                a[p + 1 + distance, k] = r[1] * r[2] + r[0] * r[3]
                            for k in T.serial(n):
                                r[2] = vectors[b, k, p]
                                r[3] = vectors[b, k, p + 1 + distance]
                                vectors[b, k, p] = r[0] * r[2] - r[1] * r[3]
                                vectors[b, k, p + 1 + distance] = r[1] * r[2] + r[0] * r[3]
            for i in T.serial(n):
                values[b, i] = a[i, i]
            for p in T.serial(n):
                row[0] = p
                for i in T.serial(n - p):
                    if values[b, p + i] < values[b, row[0]]:
                        row[0] = p + i
                r[0] = values[b, p]
                values[b, p] = values[b, row[0]]
                values[b, row[0]] = r[0]
                for k in T.serial(n):
                    r[0] = vectors[b, k, p]
                    vectors[b, k, p] = vectors[b, k, row[0]]
                    vectors[b, k, row[0]] = r[0]
"""

# Of an m x n matrix, m >= n: its columns turned until they are orthogonal, their lengths, the
# largest first, and the rotation, so that x = columns transposed(v).
ONE_SIDED = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many, m, n), "float64"), u: T.Buffer((many, m, n), "float64"),
    values: T.Buffer((many, n), "float64"), v: T.Buffer((many, n, n), "float64"),
):
    T.func_attr({"tirx.noalias": True})
    for matrix in T.serial(many):
        with T.sblock("one_sided"):
            b = T.axis.spatial(many, matrix)
            T.reads(x[b, 0:m, 0:n])
            T.writes(u[b, 0:m, 0:n], values[b, 0:n], v[b, 0:n, 0:n])
            r = T.alloc_buffer((4,), "float64")
            sums = T.alloc_buffer((3,), "float64")
            row = T.alloc_buffer((1,), "int32")
            for i, j in T.grid(m, n):
                u[b, i, j] = x[b, i, j]
            for i, j in T.grid(n, n):
                v[b, i, j] = T.if_then_else(i == j, T.float64(1), T.float64(0))
            for sweep in T.serial(sweeps):
                for p in T.serial(n):
                    for distance in T.serial(n - p - 1):
                        for i in T.serial(3):
                            sums[i] = T.float64(0)
                        for k in T.serial(m):
                            r[2] = u[b, k, p]
                            r[3] = u[b, k, p + 1 + distance]
                            sums[0] = sums[0] + r[2] * r[2]
                            sums[1] = sums[1] + r[3] * r[3]
                            sums[2] = sums[2] + r[2] * r[3]
                        if T.abs(sums[2]) > T.float64(1e-17) * T.sqrt(sums[0] * sums[1]):
                            r[0] = (sums[1] - sums[0]) / (T.float64(2) * sums[2])
                            r[1] = T.float64(1) / (
                                T.abs(r[0]) + T.sqrt(r[0] * r[0] + T.float64(1))
                            )
                            if r[0] < T.float64(0):
                                r[1] = T.float64(0) - r[1]
                            r[0] = T.float64(1) / T.sqrt(r[1] * r[1] + T.float64(1))
                            r[1] = r[1] * r[0]
                            for k in T.serial(m):
                                r[2] = u[b, k, p]
                                r[3] = u[b, k, p + 1 + distance]
                                u[b, k, p] = r[0] * r[2] - r[1] * r[3]
                                u[b, k, p + 1 + distance] = r[1] * r[2] + r[0] * r[3]
                            for k in T.serial(n):
                                r[2] = v[b, k, p]
                                r[3] = v[b, k, p + 1 + distance]
                                v[b, k, p] = r[0] * r[2] - r[1] * r[3]
                                v[b, k, p + 1 + distance] = r[1] * r[2] + r[0] * r[3]
            for j in T.serial(n):
                r[0] = T.float64(0)
                for k in T.serial(m):
                    r[0] = r[0] + u[b, k, j] * u[b, k, j]
                values[b, j] = T.sqrt(r[0])
            for p in T.serial(n):
                row[0] = p
                for i in T.serial(n - p):
                    if values[b, p + i] > values[b, row[0]]:
                        row[0] = p + i
                r[0] = values[b, p]
                values[b, p] = values[b, row[0]]
                values[b, row[0]] = r[0]
                for k in T.serial(m):
                    r[0] = u[b, k, p]
                    u[b, k, p] = u[b, k, row[0]]
                    u[b, k, row[0]] = r[0]
                for k in T.serial(n):
                    r[0] = v[b, k, p]
                    v[b, k, p] = v[b, k, row[0]]
                    v[b, k, row[0]] = r[0]
"""
