//! RFC number of a document, from its name.

/// The number in `rfc48.txt`, `RFC0048.txt` and the like.
pub fn number(file_name: &str) -> Option<u32> {
    let name = file_name.to_ascii_lowercase();
    let digits: String = name.strip_prefix("rfc")?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|number| *number > 0)
}
