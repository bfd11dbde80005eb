//! Counts and results as text for people.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::v1::BroadcastResponse;

/// A number with its noun: "1 peer", "2 peers". `one` is the singular of a noun whose plural ends in s.
pub fn counted(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// The first `most` of some, with `separator` between them, and how many more there are: "a, b and 3 more".
pub fn first_of<T: ToString>(all: impl ExactSizeIterator<Item = T>, most: usize, separator: &str) -> String {
    let more = all.len().saturating_sub(most);
    let shown = all.take(most).map(|one| one.to_string()).collect::<Vec<_>>().join(separator);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// The result of a broadcast; `asked`: whether acknowledgements were asked for.
pub fn acknowledgements(tally: &BroadcastResponse, asked: bool) -> String {
    if !asked {
        return format!("sent; {} known", counted(tally.known, "peer"));
    }
    let has = if tally.acknowledged == 1 || tally.known == 1 { "has" } else { "have" };
    let missing = if tally.missing.is_empty() { String::new() } else { format!("; missing: {}", tally.missing.join(", ")) };
    format!("{} of {} {has} it{missing}", tally.acknowledged, counted(tally.known, "known peer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_first_are_named_and_the_others_counted() {
        let told = |count: u32| first_of((1..=count).collect::<Vec<_>>().iter(), 2, ", ");
        assert_eq!([0, 1, 2, 3, 9].map(told), ["", "1", "1, 2", "1, 2 and 1 more", "1, 2 and 7 more"]);
    }

    #[test]
    fn nouns_are_singular_for_one_and_plural_otherwise() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "peer")), ["0 peers", "1 peer", "2 peers"]);
        let tally = |known, acknowledged, missing: &[&str]| BroadcastResponse {
            known,
            acknowledged,
            missing: missing.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(acknowledgements(&tally(1, 1, &[]), true), "1 of 1 known peer has it");
        assert_eq!(acknowledgements(&tally(3, 1, &["B", "C"]), true), "1 of 3 known peers has it; missing: B, C");
        assert_eq!(acknowledgements(&tally(1, 0, &["B"]), true), "0 of 1 known peer has it; missing: B");
        assert_eq!(acknowledgements(&tally(1, 0, &[]), false), "sent; 1 peer known");
    }
}
