"""Loop nests of factorisations, in float64, one matrix after another.

Sources: Golub and Van Loan, Matrix Computations, 4th edition: algorithms 3.4.1 (LU), 4.2.1
(Cholesky) and 5.2.1 (Householder, with the signs of LAPACK's dlarfg).
"""

LU = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many, m, n), "float64"), y: T.Buffer((many, m, n), "float64"),
    pivots: T.Buffer((many, k), "int32"), info: T.Buffer((many,), "int32"),
):
    T.func_attr({"tirx.noalias": True})
    for matrix in T.serial(many):
        with T.sblock("lu"):
            b = T.axis.spatial(many, matrix)
            T.reads(x[b, 0:m, 0:n])
            T.writes(y[b, 0:m, 0:n], pivots[b, 0:k], info[b])
            kept = T.alloc_buffer((1,), "float64")
            row = T.alloc_buffer((1,), "int32")
            info[b] = 0
            for i, j in T.grid(m, n):
                y[b, i, j] = x[b, i, j]
            for p in T.serial(k):
                row[0] = p
                if pivoting == 1:
                    for i in T.serial(m - p):
                        if T.abs(y[b, p + i, p]) > T.abs(y[b, row[0], p]):
                            row[0] = p + i
                pivots[b, p] = row[0] + 1
                for j in T.serial(n):
                    kept[0] = y[b, p, j]
                    y[b, p, j] = y[b, row[0], j]
                    y[b, row[0], j] = kept[0]
                if y[b, p, p] == T.float64(0):
                    if info[b] == 0:
                        info[b] = p + 1
                else:
                    for i in T.serial(m - p - 1):
                        y[b, p + 1 + i, p] = y[b, p + 1 + i, p] / y[b, p, p]
                        for j in T.serial(n - p - 1):
                            y[b, p + 1 + i, p + 1 + j] = (
                                y[b, p + 1 + i, p + 1 + j]
                                - y[b, p + 1 + i, p] * y[b, p, p + 1 + j]
                            )
"""

PERMUTATION = """
@T.prim_func(s_tir=True, private=True)
def main(pivots: T.Buffer((many, k), "int32"), y: T.Buffer((many, m), "int32")):
    T.func_attr({"tirx.noalias": True})
    for matrix in T.serial(many):
        with T.sblock("permutation"):
            b = T.axis.spatial(many, matrix)
            T.reads(pivots[b, 0:k])
            T.writes(y[b, 0:m])
            kept = T.alloc_buffer((1,), "int32")
            row = T.alloc_buffer((1,), "int32")
            for i in T.serial(m):
                y[b, i] = i
            for p in T.serial(k):
                row[0] = T.min(T.max(pivots[b, p] - 1, 0), m - 1)
                kept[0] = y[b, p]
                y[b, p] = y[b, row[0]]
                y[b, row[0]] = kept[0]
"""

CHOLESKY = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many, n, n), "float64"), y: T.Buffer((many, n, n), "float64"),
    info: T.Buffer((many,), "int32"),
):
    T.func_attr({"tirx.noalias": True})
    for matrix in T.serial(many):
        with T.sblock("cholesky"):
            b = T.axis.spatial(many, matrix)
            T.reads(x[b, 0:n, 0:n])
            T.writes(y[b, 0:n, 0:n], info[b])
            total = T.alloc_buffer((1,), "float64")
            info[b] = 0
            for i, j in T.grid(n, n):
                y[b, i, j] = T.float64(0)
            for j in T.serial(n):
                for i in T.serial(n - j):
                    total[0] = x[b, j + i, j]
                    for k in T.serial(j):
                        total[0] = total[0] - y[b, j + i, k] * y[b, j, k]
                    if i == 0:
                        if total[0] <= T.float64(0):
                            if info[b] == 0:
                                info[b] = j + 1
                        y[b, j, j] = T.sqrt(total[0])
                    else:
                        y[b, j + i, j] = total[0] / y[b, j, j]
"""

TRIANGULAR = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many, n, n), "float64"), given: T.Buffer((many, n, m), "float64"),
    y: T.Buffer((many, n, m), "float64"),
):
    T.func_attr({"tirx.noalias": True})
    for matrix in T.serial(many):
        with T.sblock("triangular"):
            b = T.axis.spatial(many, matrix)
            T.reads(x[b, 0:n, 0:n], given[b, 0:n, 0:m])
            T.writes(y[b, 0:n, 0:m])
            for i in T.serial(n):
                for j in T.serial(m):
                    y[b, first + step * i, j] = given[b, first + step * i, j]
                    for k in T.serial(i):
                        y[b, first + step * i, j] = (
                            y[b, first + step * i, j]
                            - x[b, first + step * i, first + step * k] * y[b, first + step * k, j]
                        )
                    if unit == 0:
                        y[b, first + step * i, j] = (
                            y[b, first + step * i, j] / x[b, first + step * i, first + step * i]
                        )
"""

QR = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many, m, n), "float64"), y: T.Buffer((many, m, n), "float64"),
    tau: T.Buffer((many, k), "float64"),
):
    T.func_attr({"tirx.noalias": True})
    for matrix in T.serial(many):
        with T.sblock("qr"):
            b = T.axis.spatial(many, matrix)
            T.reads(x[b, 0:m, 0:n])
            T.writes(y[b, 0:m, 0:n], tau[b, 0:k])
            total = T.alloc_buffer((1,), "float64")
            beta = T.alloc_buffer((1,), "float64")
            for i, j in T.grid(m, n):
                y[b, i, j] = x[b, i, j]
            for p in T.serial(k):
                total[0] = T.float64(0)
                for i in T.serial(m - p - 1):
                    total[0] = total[0] + y[b, p + 1 + i, p] * y[b, p + 1 + i, p]
                tau[b, p] = T.float64(0)
                if total[0] > T.float64(0):
                    beta[0] = T.sqrt(total[0] + y[b, p, p] * y[b, p, p])
                    if y[b, p, p] > T.float64(0):
                        beta[0] = T.float64(0) - beta[0]
                    tau[b, p] = (beta[0] - y[b, p, p]) / beta[0]
                    for i in T.serial(m - p - 1):
                        y[b, p + 1 + i, p] = y[b, p + 1 + i, p] / (y[b, p, p] - beta[0])
                    y[b, p, p] = beta[0]
                    for j in T.serial(n - p - 1):
                        total[0] = y[b, p, p + 1 + j]
                        for i in T.serial(m - p - 1):
                            total[0] = total[0] + y[b, p + 1 + i, p] * y[b, p + 1 + i, p + 1 + j]
                        total[0] = total[0] * tau[b, p]
                        y[b, p, p + 1 + j] = y[b, p, p + 1 + j] - total[0]
                        for i in T.serial(m - p - 1):
                            y[b, p + 1 + i, p + 1 + j] = (
                                y[b, p + 1 + i, p + 1 + j] - total[0] * y[b, p + 1 + i, p]
                            )
"""

REFLECTED = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many, m, n), "float64"), tau: T.Buffer((many, k), "float64"),
    y: T.Buffer((many, m, c), "float64"),
):
    T.func_attr({"tirx.noalias": True})
    for matrix in T.serial(many):
        with T.sblock("reflected"):
            b = T.axis.spatial(many, matrix)
            T.reads(x[b, 0:m, 0:n], tau[b, 0:k])
            T.writes(y[b, 0:m, 0:c])
            total = T.alloc_buffer((1,), "float64")
            for i, j in T.grid(m, c):
                y[b, i, j] = T.if_then_else(i == j, T.float64(1), T.float64(0))
            for q in T.serial(k):
                for j in T.serial(c):
                    total[0] = y[b, k - 1 - q, j]
                    for i in T.serial(m - k + q):
                        total[0] = total[0] + x[b, k - q + i, k - 1 - q] * y[b, k - q + i, j]
                    total[0] = total[0] * tau[b, k - 1 - q]
                    y[b, k - 1 - q, j] = y[b, k - 1 - q, j] - total[0]
                    for i in T.serial(m - k + q):
                        y[b, k - q + i, j] = (
                            y[b, k - q + i, j] - total[0] * x[b, k - q + i, k - 1 - q]
                        )
"""
