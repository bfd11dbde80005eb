//! Which documents of the share are for some peers only (`--share-to`), and for whom. Asked for by others they are as if they were not there.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{
    document::DocumentName,
    field::{InvalidField, Quoted},
    name::PeerName,
    selector::{NamePattern, validate_labels},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

/// For whom: peers by name, or by a label of their certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Those whose certificate has a name that matches.
    Name(NamePattern),
    /// Those whose certificate has this label.
    Label(String, String),
}

/// A folder of the share, and one kind of peers that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareTo {
    /// The folder: that of the share, or one below it.
    pub folder: PathBuf,
    /// For whom.
    pub who: Who,
}

impl FromStr for ShareTo {
    type Err = InvalidField;

    /// `DIR=PATTERN` or `DIR=KEY=VALUE`.
    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: &str| InvalidField::new("share-to", format!("{} {problem}", Quoted(text)));
        let Some((folder, who)) = text.split_once('=').filter(|(folder, who)| !folder.is_empty() && !who.is_empty()) else {
            return Err(wrong("is not DIR=NAME or DIR=KEY=VALUE"));
        };
        let who = match who.split_once('=') {
            Some((key, value)) => {
                validate_labels(&BTreeMap::from([(key.to_owned(), value.to_owned())]))?;
                Who::Label(key.to_owned(), value.to_owned())
            }
            None => Who::Name(NamePattern::parse(who)?.ok_or_else(|| wrong("names nobody"))?),
        };
        Ok(Self { folder: folder.into(), who })
    }
}

/// Who asks for documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    is_owner: bool,
    names: Vec<PeerName>,
    labels: BTreeMap<String, String>,
}

impl Audience {
    /// The operator of this peer, and the peer itself.
    pub fn owner() -> Self {
        Self { is_owner: true, ..Self::default() }
    }

    /// Whoever has not proven who it is.
    pub fn anyone() -> Self {
        Self::default()
    }

    /// The holder of a certificate with these names and labels.
    pub fn proven(names: &[PeerName], labels: &BTreeMap<String, String>) -> Self {
        Self { is_owner: false, names: names.to_vec(), labels: labels.clone() }
    }

    /// Whether it is the operator of this peer.
    pub(crate) fn is_owner(&self) -> bool {
        self.is_owner
    }

    fn is(&self, who: &Who) -> bool {
        match who {
            Who::Name(pattern) => self.names.iter().any(|name| pattern.matches(name.as_str())),
            Who::Label(key, value) => self.labels.get(key) == Some(value),
        }
    }
}

/// The folders of a share that are for some only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// By the folder's name in the share; the empty one is the share itself.
    folders: BTreeMap<Box<str>, Vec<Who>>,
}

impl Restrictions {
    /// Those of `given`. `share` is the folder that is shared; all paths are absolute, and lead to the same place in one way only.
    ///
    /// # Errors
    /// When a folder is not in the share, or has a name that no document can have.
    pub fn new(share: &Path, given: impl IntoIterator<Item = ShareTo>) -> Result<Self, InvalidField> {
        let mut folders: BTreeMap<Box<str>, Vec<Who>> = BTreeMap::new();
        for ShareTo { folder, who } in given {
            let shown = folder.to_string_lossy().into_owned();
            let wrong = |problem: &str| InvalidField::new("share-to", format!("{} {problem}", Quoted(&shown)));
            let below = folder.strip_prefix(share).map_err(|_| wrong("is not in the folder of --share"))?;
            let below = below.to_str().ok_or_else(|| wrong("is not UTF-8, so nothing in it is shared"))?;
            if !below.is_empty() {
                DocumentName::parse(below).map_err(|error| wrong(&format!("cannot hold documents: {error}")))?;
            }
            folders.entry(below.into()).or_default().push(who);
        }
        Ok(Self { folders })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// Whether the document is for everyone of the network.
    pub fn is_public(&self, name: &DocumentName) -> bool {
        self.folders.is_empty() || self.for_whom(name).is_none()
    }

    /// Whether `audience` may know of the document.
    pub fn allow(&self, name: &DocumentName, audience: &Audience) -> bool {
        self.folders.is_empty()
            || audience.is_owner
            || self.for_whom(name).is_none_or(|whom| whom.iter().any(|who| audience.is(who)))
    }

    /// Whether what the link `link` leads to, `target` in the share, is for the same peers by both names. Otherwise the link would open what
    /// is for some, or close what is for others.
    pub(crate) fn allow_link(&self, link: &str, target: &str) -> bool {
        // Where its files are, if it is a folder.
        let inside = if target.is_empty() { String::new() } else { format!("{target}/") };
        let is_above = self.folders.keys().any(|folder| folder.len() > inside.len() && folder.starts_with(&inside));
        !is_above && self.folder_of(&inside) == self.folder_of(link)
    }

    /// For whom the document is, if it is restricted.
    fn for_whom(&self, name: &DocumentName) -> Option<&[Who]> {
        self.folders.get(self.folder_of(name.as_str())?).map(Vec::as_slice)
    }

    /// The folder that decides for whom is what is called `name` in the share: the innermost one that `name` is in.
    fn folder_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let mut folder = name;
        while let Some((above, _)) = folder.rsplit_once('/') {
            if self.folders.contains_key(above) {
                return Some(above);
            }
            folder = above;
        }
        self.folders.contains_key("").then_some("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(texts: &[&str]) -> Vec<ShareTo> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn proven(names: &[&str], labels: &[(&str, &str)]) -> Audience {
        let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Audience::proven(&names, &labels)
    }

    #[test]
    fn the_innermost_folder_decides_and_any_of_its_rules_suffices() {
        let rules = ["/s/team=team-*", "/s/team=role=auditor", "/s/team/lead/x=boss"];
        let restrictions = Restrictions::new(Path::new("/s"), given(&rules)).unwrap();
        let allowed = |name: &str, audience: &Audience| restrictions.allow(&DocumentName::parse(name).unwrap(), audience);
        let (team, auditor, boss) =
            (proven(&["a", "Team-1"], &[]), proven(&["b"], &[("role", "auditor")]), proven(&["boss"], &[]));
        for (name, to_team, to_auditor, to_boss, to_anyone) in [
            ("open.txt", true, true, true, true),
            ("teams/open.txt", true, true, true, true),
            ("team", true, true, true, true),
            ("team/a.txt", true, true, false, false),
            ("team/deep/down/a.txt", true, true, false, false),
            ("team/lead/a.txt", true, true, false, false),
            ("team/lead/x/a.txt", false, false, true, false),
        ] {
            let got = [&team, &auditor, &boss, &Audience::anyone()].map(|audience| allowed(name, audience));
            assert_eq!(got, [to_team, to_auditor, to_boss, to_anyone], "{name}");
            assert!(allowed(name, &Audience::owner()));
            assert_eq!(restrictions.is_public(&DocumentName::parse(name).unwrap()), to_anyone);
        }
        let all = Restrictions::new(Path::new("/s"), given(&["/s=a"])).unwrap();
        assert!(!all.is_public(&DocumentName::parse("x").unwrap()) && Restrictions::default().is_empty());
    }

    #[test]
    fn a_link_leads_to_what_is_for_the_same_peers_only() {
        let restrictions = Restrictions::new(Path::new("/s"), given(&["/s/team=a", "/s/dept/x=b", "/s/team/in=c"])).unwrap();
        for (link, target, allowed) in [
            ("open", "other", true),
            ("open", "other/file", true),
            ("open", "teams/file", true),
            ("open", "team", false),
            ("open", "team/file", false),
            ("open", "team/deep/down", false),
            ("open", "dept", false),
            ("open", "dept/y", true),
            ("open", "", false),
            ("team/link", "team/file", true),
            ("team/link", "team/deep", true),
            ("team/link", "team", false),
            ("team/link", "team/in/file", false),
            ("team/link", "other", false),
            ("team/in/link", "team/file", false),
            ("dept/link", "dept/x", false),
        ] {
            assert_eq!(restrictions.allow_link(link, target), allowed, "{link} -> {target}");
        }
        assert!(Restrictions::default().allow_link("a", "b"));
    }

    #[test]
    fn a_rule_names_a_folder_of_the_share_and_somebody() {
        for text in ["", "dir", "dir=", "=a", "dir=a b", "dir=k e=v", "dir==v"] {
            assert!(text.parse::<ShareTo>().is_err(), "{text}");
        }
        for folder in ["/t", "/share", "/s/.hidden"] {
            let refused = Restrictions::new(Path::new("/s"), given(&[&format!("{folder}=a")])).unwrap_err();
            assert_eq!(refused.field, "share-to", "{folder}");
        }
    }
}
