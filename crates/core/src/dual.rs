//! Dual numbers: a value and its derivative in one direction (Clifford, 1871; Wengert, 1964).
//!
//! A definition run over [`Dual`] computes its Jacobian–vector product exactly, to rounding in f64, with no
//! step size. Paired with the analytic gradient it shows that gradient to be the adjoint.

use crate::real::Real;
use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// `re + du·ε` with `ε² = 0`.
#[derive(Clone, Copy, Debug)]
pub struct Dual {
    /// The value.
    pub re: f64,
    /// The derivative.
    pub du: f64,
}

impl Dual {
    /// A value and its derivative.
    pub fn new(re: f64, du: f64) -> Dual {
        Dual { re, du }
    }

    /// `f(self)`, where `f` and `f'` have the given values at `self.re`.
    fn chain(self, value: f64, slope: f64) -> Dual {
        Dual { re: value, du: slope * self.du }
    }
}

/// Comparison is that of the values: a definition takes the same branch as over f64.
impl PartialEq for Dual {
    fn eq(&self, other: &Dual) -> bool {
        self.re == other.re
    }
}

impl PartialOrd for Dual {
    fn partial_cmp(&self, other: &Dual) -> Option<Ordering> {
        self.re.partial_cmp(&other.re)
    }
}

impl Add for Dual {
    type Output = Dual;
    fn add(self, b: Dual) -> Dual {
        Dual { re: self.re + b.re, du: self.du + b.du }
    }
}

impl Sub for Dual {
    type Output = Dual;
    fn sub(self, b: Dual) -> Dual {
        Dual { re: self.re - b.re, du: self.du - b.du }
    }
}

impl Mul for Dual {
    type Output = Dual;
    fn mul(self, b: Dual) -> Dual {
        Dual { re: self.re * b.re, du: self.du * b.re + self.re * b.du }
    }
}

impl Div for Dual {
    type Output = Dual;
    fn div(self, b: Dual) -> Dual {
        Dual { re: self.re / b.re, du: (self.du - self.re / b.re * b.du) / b.re }
    }
}

impl Neg for Dual {
    type Output = Dual;
    fn neg(self) -> Dual {
        Dual { re: -self.re, du: -self.du }
    }
}

impl Real for Dual {
    type Wide = Dual;
    fn of(x: f64) -> Dual {
        Dual { re: x, du: 0.0 }
    }
    fn value(self) -> f64 {
        self.re
    }
    fn wide(self) -> Dual {
        self
    }
    fn narrow(wide: Dual) -> Dual {
        wide
    }
    fn fma(self, b: Dual, c: Dual) -> Dual {
        Dual { re: self.re.mul_add(b.re, c.re), du: self.du * b.re + self.re * b.du + c.du }
    }
    fn sqrt(self) -> Dual {
        let root = self.re.sqrt();
        self.chain(root, 0.5 / root)
    }
    fn exp(self) -> Dual {
        let e = Real::exp(self.re);
        self.chain(e, e)
    }
    fn log(self) -> Dual {
        self.chain(Real::log(self.re), 1.0 / self.re)
    }
    fn tanh(self) -> Dual {
        let t = Real::tanh(self.re);
        self.chain(t, 1.0 - t * t)
    }
    fn sigmoid(self) -> Dual {
        let s = self.re.sigmoid();
        self.chain(s, s * (-self.re).sigmoid())
    }
    fn softplus(self) -> Dual {
        self.chain(self.re.softplus(), self.re.sigmoid())
    }
    fn erf(self) -> Dual {
        let slope = std::f64::consts::FRAC_2_SQRT_PI * Real::exp(-self.re * self.re);
        self.chain(Real::erf(self.re), slope)
    }
    fn pow(self, p: f32) -> Dual {
        let exponent = f64::from(p);
        self.chain(self.re.pow(p), exponent * libm::pow(self.re, exponent - 1.0))
    }
}
