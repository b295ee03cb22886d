//! Values on the command line: what is no number says which numbers there are, and what a run is to write has a name
//! that other programs can take.

use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::OsString;
use std::path::PathBuf;

/// A whole number that is not negative.
pub(crate) fn whole<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = text.parse::<u64>().ok().and_then(|number| T::try_from(number).ok());
    let most = u64::MAX >> (64 - 8 * size_of::<T>());
    number.ok_or_else(|| match most {
        u64::MAX => "give a whole number".to_owned(),
        most => format!("give a whole number from 0 to {most}"),
    })
}

/// More threads only wait, and systems that cannot make them end the process.
pub(crate) const MAX_THREADS: usize = 1024;

/// A number of threads; whether it can be had is said where they are made.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("give a whole number from 1 to {MAX_THREADS}"))
}

/// A number. What cannot be written as a double is none, and not infinite.
pub(crate) fn real(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "give a number, such as 0.001".to_owned())?;
    if number.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) {
        return Err("give a number below 1.8e308".to_owned());
    }
    Ok(number)
}

/// A path to write to. One that begins with a dash is most likely a flag, and a trap for whoever removes it later.
pub(crate) fn place() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text: OsString| {
        if text.is_empty() {
            return Err("give a path");
        }
        if text.as_encoded_bytes().starts_with(b"-") {
            return Err("begins with a dash; write ./ before it if that is meant");
        }
        Ok(PathBuf::from(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_others() {
        assert_eq!(whole::<u32>("4294967295"), Ok(u32::MAX));
        for text in ["4294967296", "-1", "", "nan", "1.5", " 1", "1e3"] {
            assert!(whole::<u32>(text).unwrap_err().ends_with("0 to 4294967295"), "{text}");
        }
        assert_eq!(whole::<u64>("18446744073709551615"), Ok(u64::MAX));
        assert!(whole::<u64>("18446744073709551616").is_err());
        assert_eq!(real("1e-3"), Ok(1e-3));
        assert!(real("inf").is_ok_and(f64::is_infinite) && real("nan").is_ok_and(f64::is_nan));
        for text in ["1e999", "-1e999", "", "1,5", "0x1"] {
            assert!(real(text).is_err(), "{text}");
        }
    }
}
