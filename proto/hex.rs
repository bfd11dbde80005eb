//! Bytes as hexadecimal text. Written in lower case; read in either case.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use data_encoding::{Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};
use std::fmt;

/// The crate has constants, and [`display`] borrows.
static LOWER: Encoding = HEXLOWER;
static EITHER: Encoding = HEXLOWER_PERMISSIVE;

/// `bytes` as two lower-case digits each.
pub fn encode(bytes: &[u8]) -> String {
    LOWER.encode(bytes)
}

/// The same for a formatter, without a string in between.
pub fn display(bytes: &[u8]) -> impl fmt::Display + use<'_> {
    LOWER.encode_display(bytes)
}

/// Reads exactly `2 * N` digits; `None` for any other text.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if EITHER.decode_len(text.len()).ok()? != N {
        return None;
    }
    EITHER.decode_mut(text.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_after_a_round_trip_and_either_case_is_read() {
        let bytes = [0x00, 0x0f, 0xa5, 0xff];
        assert_eq!(encode(&bytes), "000fa5ff");
        assert_eq!(display(&bytes).to_string(), encode(&bytes));
        assert_eq!(decode("000fa5ff"), Some(bytes));
        assert_eq!(decode("000FA5FF"), Some(bytes));
    }

    #[test]
    fn text_of_another_length_or_with_other_characters_is_refused() {
        for text in ["", "0", "000fa5f", "000fa5ff0", "000fa5ff00", "000fa5fg", "+00fa5ff", " 00fa5ff", "000fa5\u{e9}"] {
            assert_eq!(decode::<4>(text), None, "{text:?}");
        }
        assert_eq!(decode(""), Some([]));
    }
}
