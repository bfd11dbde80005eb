//! Recognizes names of authors and their affiliations, so that they are not taken for titles.
//!
//! On a cover page a name has the position of a title. It is recognized by initials, given names and
//! the organizations of the time.

use super::line::{is_listed, words};

/// Given names of RFC authors that are written without an initial.
const GIVEN_NAMES: &str = "\
    abhai abhay alan alex allan allen andrew anne art barry ben bernard bill bob brian \
    bruce carl charles chris christian christopher craig dan daniel danny dave david \
    debbie dennis dick don donald doug douglas ed edward edwin elizabeth ellen eric \
    frank fred gary geoff george gerard greg henry howard jack jacob jake james jeff \
    jeffrey jerry jim joe joel john jon jonathan joseph joyce karen keith ken kenneth \
    larry lawrence leonard marshall martin mary michael mike nancy neil noel paul peggy \
    peter phil philip ray richard robert roger ronald scott stephen steve steven thomas \
    tom vint";

/// Organizations that sign with an acronym or one name.
const ORGANIZATIONS: &str = "\
    ames arc arpa bbn bell burroughs case cca ccn cmu darpa dca dec ets harvard ibm \
    illinois isi lbl ll merit mit mitre nasa nbs ncar nic nmc nosc rand raytheon sdc sri \
    stanford sumex tenex ucl ucla ucsb ucsd usc utah xerox parc";

/// Words that an affiliation can have beside its organization.
const SITES: &str = "\
    project mac computer science net ai dm dms cg multics tip at inc dept department \
    cambridge research center";

/// Words that show that a line is an organization.
const INSTITUTIONS: &str = "\
    university institute institution laboratory laboratories corporation corp inc college bolt \
    beranek gmbh";

/// Words that show that a line below a name is an affiliation or an address.
const PLACES: &str = "\
    lab labs boulevard street avenue drive road massachusetts california virginia agency office \
    department center";

/// Words of titles that an affiliation does not have.
const TOPICS: &str = "\
    protocol protocols specification specifications host hosts option report meeting \
    comments notes proposal survey status standard format facilities message policy \
    access information";

/// Whether `text` is the names of one or more people, possibly with their affiliations.
pub(super) fn is_person(text: &str) -> bool {
    let unbracketed = text.split(['(', '<', '[']).next().unwrap_or("").trim();
    let unbracketed = unbracketed.strip_prefix("by ").or_else(|| unbracketed.strip_prefix("By ")).unwrap_or(unbracketed);
    if unbracketed.is_empty() || has_topic(unbracketed) {
        return false;
    }
    let mut is_named = false;
    let parts = unbracketed.split([',', '&', ';', '/']).flat_map(|part| part.split(" and ")).flat_map(|part| part.split(" - "));
    for part in parts {
        let part = part.trim();
        if part.is_empty() || is_affiliation(part) {
            continue;
        }
        match name(part) {
            Some(is_certain) => is_named |= is_certain,
            None => return false,
        }
    }
    is_named
}

/// `None` if `text` cannot be a name; otherwise whether it is certainly one, with initials or a given
/// name first.
fn name(text: &str) -> Option<bool> {
    const PARTICLES: &str = "de van von der den la le di du";
    const WORDS_MAX: usize = 5;
    let tokens: Vec<&str> = text.split_whitespace().collect();
    if tokens.len() > WORDS_MAX {
        return None;
    }
    let mut has_initials = false;
    let mut has_word = false;
    let mut letters = 0;
    for token in &tokens {
        if is_initials(token) {
            has_initials = true;
        } else if is_listed(PARTICLES, token) {
        } else if token.starts_with(char::is_uppercase) && token.chars().all(|c| c.is_alphabetic() || "'-.’".contains(c)) {
            if token.chars().count() == 1 {
                letters += 1;
            } else {
                has_word = true;
            }
        } else {
            return None;
        }
    }
    // "R B Kalin", but not "A Protocol".
    has_initials |= letters >= 2 && tokens.len() == letters + 1;
    let is_given = tokens.len() >= 2 && tokens.first().is_some_and(|first| is_listed(GIVEN_NAMES, &first.to_lowercase()));
    Some(has_word && (has_initials || is_given))
}

/// `J.`, `M.A.`, `J.-P.`
fn is_initials(token: &str) -> bool {
    let letters = token.chars().filter(|c| c.is_uppercase()).count();
    let is_roman = letters > 1 && token.chars().all(|c| matches!(c, 'I' | 'V' | 'X' | '.'));
    (1..=2).contains(&letters)
        && !is_roman
        && token.ends_with('.')
        && token != "U.S."
        && token.chars().all(|c| c.is_uppercase() || matches!(c, '.' | '-'))
}

/// Whether `text` is only an organization or an address. Use it only next to a name: elsewhere the words
/// of an address can be those of a title (`Data Center Terminology`), see [`is_organization`].
pub(super) fn is_affiliation(text: &str) -> bool {
    let is_street = text.starts_with(|c: char| c.is_ascii_digit())
        && words(text).last().is_some_and(|end| matches!(end, "St" | "Ave" | "Blvd" | "Rd"));
    is_organization(text) || is_street || names_only(PLACES, text)
}

/// Whether `text` is certainly an organization, whatever its position.
pub(super) fn is_organization(text: &str) -> bool {
    let undotted = text.replace('.', "").to_lowercase();
    let mut tokens = words(&undotted);
    let is_known = |word: &str| is_listed(ORGANIZATIONS, word);
    let is_acronym = tokens.next().is_some_and(is_known) && tokens.all(|word| is_known(word) || is_listed(SITES, word));
    is_acronym || names_only(INSTITUTIONS, text)
}

/// Whether one of `words_of_places` is in `text`, and no word that shows a title.
fn names_only(words_of_places: &str, text: &str) -> bool {
    const SMALL: &str = "a an as at by for from in on over to with";
    const WORDS_MAX: usize = 10;
    let folded = text.to_lowercase();
    words(&folded).any(|word| is_listed(words_of_places, word))
        && !words(&folded).any(|word| is_listed(SMALL, word))
        && !has_topic(text)
        && words(text).count() <= WORDS_MAX
}

fn has_topic(text: &str) -> bool {
    words(&text.to_lowercase()).any(|word| is_listed(TOPICS, word))
}

#[cfg(test)]
mod tests {
    use super::{is_affiliation, is_organization, is_person};

    #[test]
    fn names_are_distinguished_from_titles() {
        for text in [
            "J. Postel",
            "Edwin W. Meyer, Jr.",
            "M.A. PADLIPSKY",
            "R B Kalin",
            "Steve Crocker (UCLA)",
            "Vint Cerf",
            "By David D. Clark",
            "J. Postel and S. Crocker",
            "J. F. Heafner-Rand",
            "Jerry Cole, UCLA",
            "Vint Cerf - UCLA",
            "JOHN McCONNELL",
            "G. J. de Groot",
        ] {
            assert!(is_person(text), "{text}");
        }
        for text in [
            "DEL",
            "Link 191",
            "Telnet - A Note",
            "Algorithms Part II.",
            "A Simplified NCP Protocol",
            "U.S. Department of Defense Options",
            "Time Server",
            "Getting Rid of Marking",
            "Bill's Response",
            "A. Introduction to It",
            "",
        ] {
            assert!(!is_person(text), "{text}");
        }
    }

    #[test]
    fn affiliations_are_distinguished_from_titles() {
        for text in [
            "UCLA",
            "M.I.T.",
            "SRI-ARC",
            "MIT Project MAC",
            "Ames Research Center",
            "USC/ISI",
            "University of California",
            "Bolt Beranek and Newman Inc.",
            "1400 Wilson Boulevard",
            "MOFFETT FIELD, CALIFORNIA",
            "10 Moulton St.",
            "Cambridge, Massachusetts",
        ] {
            assert!(is_affiliation(text), "{text}");
        }
        for text in [
            "Network Host Status",
            "CCN as a Network Service Center",
            "BYTES",
            "Link 191",
            "Comments from the University of California",
            "",
        ] {
            assert!(!is_affiliation(text), "{text}");
        }
    }

    #[test]
    fn only_certain_organizations_are_recognized_without_context() {
        for text in ["UCLA", "M.I.T.", "USC/ISI", "Bolt Beranek and Newman Inc."] {
            assert!(is_organization(text), "{text}");
        }
        for text in ["Data Center Benchmarking Terminology", "Key Distribution Center"] {
            assert!(!is_organization(text), "{text}");
        }
    }
}
