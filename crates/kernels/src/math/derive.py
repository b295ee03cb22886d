"""Where the constants of kinone_kernels::math come from, and who decides what its f64 oracle cannot.

    python3 derive.py                                   print every table, with the greatest error of its polynomial
    exhaustive_math | python3 derive.py check           round each undecided input correctly, with 300 bits, and compare

Needs mpmath (made with 1.3.0). The polynomials are minimax, by the exchange algorithm of Remez on a grid of points.
"""

import re
import struct
import sys

import mpmath as mp

mp.mp.prec = 300


def remez(f, weight, low, high, degree, points=1000):
    """Coefficients of the polynomial p of least max |weight·(f - p)| on [low, high], rounded to f64, and that maximum."""
    low, high, unknowns = mp.mpf(low), mp.mpf(high), degree + 2
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / points) for i in range(points + 1)]
    values, weights = [f(x) for x in grid], [weight(x) for x in grid]

    def error(c):
        return [w * (v - mp.polyval(c[::-1], x)) for x, v, w in zip(grid, values, weights)]

    chosen = [round(i * points / (unknowns - 1)) for i in range(unknowns)]
    for _ in range(40):
        rows = [[grid[j] ** k for k in range(degree + 1)] + [(-1) ** i / weights[j]] for i, j in enumerate(chosen)]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([values[j] for j in chosen]))
        c, level = list(solution)[:-1], abs(solution[degree + 1])
        e = error(c)
        if max(map(abs, e)) < level * mp.mpf("1.0001"):
            break
        # The greatest error of each run of one sign; of too many, the least of an end goes, then of neighbours.
        runs = [[0]]
        for j in range(1, points + 1):
            if (e[j] > 0) == (e[j - 1] > 0):
                runs[-1].append(j)
            else:
                runs.append([j])
        chosen = [max(run, key=lambda j: abs(e[j])) for run in runs]
        while len(chosen) > unknowns:
            if len(chosen) == unknowns + 1:
                chosen.pop(0 if abs(e[chosen[0]]) < abs(e[chosen[-1]]) else -1)
            else:
                pairs = range(len(chosen) - 1)
                least = min(pairs, key=lambda i: max(abs(e[chosen[i]]), abs(e[chosen[i + 1]])))
                del chosen[least : least + 2]
    rounded = [float(v) for v in c]
    return rounded, max(map(abs, error([mp.mpf(v) for v in rounded])))


def series(term):
    return lambda x: mp.fsum(term(k) * x**k for k in range(60))


def erf_rate(x):
    return -mp.log(mp.erfc(x)) / x if x else 2 / mp.sqrt(mp.pi)


def erf_weight(x):
    """The relative error of erf that an error of 1 in the rate makes."""
    return x * mp.erfc(x) / mp.erf(x) if x else mp.mpf(1)


def tables():
    half_log = mp.log(2) / 2 * mp.mpf("1.0001")
    s = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)
    quarter = mp.mpf("0.2501")
    # A weight that vanishes somewhere gets a little more everywhere, or the equations would be singular.
    little = mp.mpf(2) ** -20
    yield "EXPM1", remez(
        series(lambda k: 1 / mp.factorial(k + 2)), lambda r: (r * r + mp.mpf(2) ** -12) / mp.exp(r), -half_log, half_log, 9
    )
    yield "ATANH", remez(series(lambda k: mp.mpf(2) / (2 * k + 3)), lambda z: z + little, 0, s * s * mp.mpf("1.001"), 7)
    yield "ERFC_RATE", remez(erf_rate, erf_weight, 0, "3.93", 23)
    turn = mp.pi / 2
    yield "SINE", remez(
        series(lambda k: (-1) ** k * turn ** (2 * k + 1) / mp.factorial(2 * k + 1)), lambda z: mp.mpf(1), 0, quarter, 6
    )
    yield "COSINE", remez(
        series(lambda k: (-1) ** (k + 1) * turn ** (2 * k + 2) / mp.factorial(2 * k + 2)), lambda z: z + little, 0, quarter, 6
    )


def two_over_pi(row):
    """The bits of 2/π for |x| < 2^(32 + 8·row): two numbers of 29 bits and the rest."""
    # Of row > 0, x is a multiple of 2^(8·(row + 3) - 23); bits above `top` give multiples of 4.
    top = 25 - 8 * (row + 3)
    cut = lambda value, bit: mp.floor(mp.ldexp(value, -bit)) * mp.mpf(2) ** bit
    rest = 2 / mp.pi - cut(2 / mp.pi, top)
    first = cut(rest, min(top, 0) - 28)
    second = cut(rest - first, min(top, 0) - 56)
    return [float(c) for c in (first, second, rest - first - second)]


def fnv(numbers):
    """FNV-1a of the bits of f64 numbers, as `math/tests.rs` computes it."""
    value = 0xCBF29CE484222325
    for byte in b"".join(struct.pack("<d", number) for number in numbers):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:#018x}"


def print_tables():
    high = mp.floor(mp.log(2) * 2**40) / 2**40
    print(f"LN_2_HIGH = {float(high)!r}, LN_2_LOW = {float(mp.log(2) - high)!r}")
    for name, (coefficients, error) in tables():
        print(f"{name}: error 2^{mp.nstr(mp.log(error, 2), 5)}, hash {fnv(coefficients)}")
        for c in coefficients:
            print(f"    {c!r},")
    rows = [two_over_pi(row) for row in range(13)]
    print(f"TWO_OVER_PI: hash {fnv(sum(rows, []))}")
    for row in rows:
        print("    [" + ", ".join("0x%016x" % struct.unpack("<Q", struct.pack("<d", c)) for c in row) + "],")


EXACT = {
    "exp": mp.exp,
    "log": mp.log,
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log(1 + mp.exp(x)),
    "erf": mp.erf,
    "sin": mp.sin,
    "cos": mp.cos,
}


def nearest(value):
    """The bits of the f32 nearest to a value that is not half-way between two."""
    exponent = max(int(mp.frexp(abs(value))[1]) - 24, -149)
    return struct.unpack("<I", struct.pack("<f", float(mp.nint(mp.ldexp(value, -exponent)) * mp.mpf(2) ** exponent)))[0]


def check():
    seen = wrong = 0
    for line in sys.stdin:
        match = re.match(r"undecided: (\w+)\(0x(\w+)\) = 0x(\w+)", line)
        if match:
            seen += 1
            x = struct.unpack("<f", struct.pack("<I", int(match[2], 16)))[0]
            right = nearest(EXACT[match[1]](mp.mpf(x)))
            if right != int(match[3], 16):
                wrong += 1
                print(f"{line.strip()}; nearest is {right:#010x}")
    print(f"{seen} undecided, {wrong} not rounded correctly")
    sys.exit(wrong > 0 or seen == 0)


if __name__ == "__main__":
    check() if sys.argv[1:] == ["check"] else print_tables()
