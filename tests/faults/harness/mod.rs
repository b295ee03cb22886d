//! How faults are made and what is checked after each.

#![allow(unused_imports, dead_code, reason = "each group of faults uses its part")]

pub(crate) mod foreign;
mod place;
pub(crate) mod power;
pub(crate) mod preload;
mod program;
mod record;
pub(crate) mod strace;

pub(crate) use place::{Place, TINY, Whole, small};
pub(crate) use program::{Ended, Program, as_user, is_here, kinone, not_root};
pub(crate) use record::{Fault, is_full, sample};
