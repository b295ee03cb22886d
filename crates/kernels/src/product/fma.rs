//! The fused multiply-add in software, for processors without one.
//!
//! The product of two f32 is exact in f64, so `s = a·b + c` is rounded once there, and again when it is
//! narrowed. Two roundings differ from one only where the first lands on the boundary between two f32: then
//! `s` is first rounded to odd (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved
//! algorithms using rounding to odd", IEEE Transactions on Computers 57 (2008), theorem 3: 53 ≥ 2·24 + 2 bits
//! suffice).

/// The low bits of an f64 that a normal f32 lacks.
const LOST: u64 = (1 << 29) - 1;
/// Those bits half-way between two f32.
const HALF: u64 = 1 << 28;

/// `a·b + c` rounded once, lane by lane: the bits of [`f32::mul_add`].
#[inline(always)]
pub(super) fn fma<const N: usize>(a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
    let mut sums = [0.0_f64; N];
    let mut close = false;
    for l in 0..N {
        sums[l] = f64::from(a[l]) * f64::from(b[l]) + f64::from(c[l]);
        // Below the smallest normal f32 the boundaries lie elsewhere.
        let denormal = sums[l].abs() < f64::from(f32::MIN_POSITIVE) && sums[l] != 0.0;
        close |= sums[l].to_bits() & LOST == HALF || denormal;
    }
    if close {
        for l in 0..N {
            sums[l] = to_odd(f64::from(a[l]) * f64::from(b[l]), f64::from(c[l]));
        }
    }
    sums.map(|sum| sum as f32)
}

/// `p + c`, and where that is not exact the neighbour with an odd last bit.
#[inline]
fn to_odd(p: f64, c: f64) -> f64 {
    let sum = p + c;
    // The error of the sum (Knuth's TwoSum); NaN where the sum is not finite.
    let part = sum - p;
    let error = (p - (sum - part)) + (c - part);
    let bits = sum.to_bits();
    if bits & 1 == 1 || error == 0.0 || error.is_nan() {
        return sum;
    }
    let outward = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if outward { bits + 1 } else { bits - 1 })
}

#[cfg(test)]
mod tests {
    use super::fma;

    fn same(a: f32, b: f32, c: f32) {
        let bits = |x: f32| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
        let ([got], wanted) = (fma([a], [b], [c]), a.mul_add(b, c));
        assert!(bits(got) == bits(wanted), "fma({a:e}, {b:e}, {c:e}) is {wanted:e}, not {got:e}");
    }

    /// Corners of the format, and numbers with few bits: their sums meet the boundaries.
    #[test]
    fn corners_round_once() {
        let mut corners = vec![0.0, 1.0, 1.5, f32::INFINITY, f32::NAN, f32::MAX, f32::EPSILON];
        for bits in
            [1, 2, 3, 0x7f_ffff, 0x80_0000, 0x80_0001, 0x00ff_ffff, 0x3f80_0001, 0x3f7f_ffff, 0x3fff_ffff]
        {
            corners.push(f32::from_bits(bits));
        }
        for exponent in
            [-149, -148, -127, -126, -100, -75, -74, -50, -49, -48, -25, -24, -23, -1, 1, 23, 24, 25, 75, 127]
        {
            let power = f64::from_bits(((1023 + exponent) as u64) << 52) as f32;
            corners.extend([power, power * 3.0, power * (1.0 + f32::EPSILON)]);
        }
        let corners: Vec<f32> = corners.iter().flat_map(|x| [*x, -x]).collect();
        for a in &corners {
            for b in &corners {
                for c in &corners {
                    same(*a, *b, *c);
                }
            }
        }
    }

    /// Random bits, with exponents close enough for the addend to matter, and sums next to a boundary.
    #[test]
    fn random_values_round_once() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for round in 0..2_000_000_u32 {
            let (a, b) = (f32::from_bits(random()), f32::from_bits(random()));
            same(a, b, f32::from_bits(random()));
            let product = a * b;
            let shift = random() % 60;
            let near = product.to_bits() & 0x8000_0000
                | (product.to_bits() & 0x7f80_0000).wrapping_sub(shift << 23) & 0x7fff_ffff;
            same(a, b, f32::from_bits(near | random() & 0x7f_ffff));
            // Half an ulp of c, and a little more or less.
            let power = 0x3f80_0000 - (round % 30) * 0x80_0000;
            let (one, tiny) = (f32::from_bits(power), f32::from_bits(power - 0x0c00_0000 + random() % 3));
            same(one, tiny, one * (1.0 + f32::EPSILON * (random() % 8) as f32));
            same(-one, tiny, one * (1.0 + f32::EPSILON * (random() % 8) as f32));
        }
    }

    /// 1 + 2^-24 + 2^-80 lies above the boundary, yet its f64 lies on it.
    #[test]
    fn a_sum_just_beside_a_boundary_is_not_rounded_twice() {
        let (a, c) = (f32::from_bits(0x3380_0000), f32::from_bits(0x3f80_0000));
        let above = f32::from_bits(0x3f80_0001);
        let b = above;
        assert_eq!(fma([a], [b], [c])[0], above);
        same(a, b, c);
        same(1.0e-30, 1.0e-30, above);
    }
}
