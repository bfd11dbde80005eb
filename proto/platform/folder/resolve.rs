//! Following a relative path one part at a time, so that no `..` and no link leads out of the folder it begins at.

use super::{FileKind, LookupError};
use std::{
    ffi::{OsStr, OsString},
    path::{Component, Path, PathBuf},
};

/// Most links on the way to one file, as Linux has it (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Most parts of a path that wait to be followed, more than any system takes: links that repeat themselves would grow it.
const PARTS_MAX: usize = 4096;

/// An open folder on the way.
pub(super) trait Step: Sized {
    /// Of what is at `name`, a link counting as itself.
    fn kind_of(&self, name: &OsStr) -> Result<FileKind, LookupError>;
    /// The target of the link at `name`.
    fn read_link(&self, name: &OsStr) -> Result<PathBuf, LookupError>;
    /// The folder at `name`, not through a link.
    fn enter(&self, name: &OsStr) -> Result<Self, LookupError>;
}

/// Where a path ends: the folders entered below the root, innermost last, and the name in the innermost one, which is no link;
/// `None` when the path ends at that folder itself.
pub(super) struct Resolved<S> {
    pub(super) entered: Vec<S>,
    pub(super) name: Option<OsString>,
}

/// Follows `path` from `root`, whose real path (without links) is `real_root`. A link is replaced by its target. `..` goes back to the
/// folder that this came from, and never beyond the root.
pub(super) fn resolve<S: Step>(
    root: &S,
    real_root: impl Fn() -> Result<PathBuf, LookupError>,
    path: &Path,
) -> Result<Resolved<S>, LookupError> {
    let mut entered: Vec<S> = Vec::new();
    let mut rest: Vec<OsString> = Vec::new();
    push_parts(&mut rest, path)?;
    let mut links = 0;
    loop {
        let here = entered.last().unwrap_or(root);
        let Some(part) = rest.pop() else { return Ok(Resolved { entered, name: None }) };
        if part == ".." {
            entered.pop().ok_or(LookupError::Outside)?;
            continue;
        }
        if here.kind_of(&part)? == FileKind::Link {
            links += 1;
            if links > LINKS_MAX {
                return Err(LookupError::Loop);
            }
            let target = here.read_link(&part)?;
            if target.is_absolute() {
                entered.clear();
                push_parts(&mut rest, target.strip_prefix(real_root()?).map_err(|_| LookupError::Outside)?)?;
            } else {
                push_parts(&mut rest, &target)?;
            }
        } else if rest.is_empty() {
            return Ok(Resolved { entered, name: Some(part) });
        } else {
            let next = here.enter(&part)?;
            entered.push(next);
        }
    }
}

/// Puts the parts of a relative path on a stack, the first on top.
fn push_parts(stack: &mut Vec<OsString>, path: &Path) -> Result<(), LookupError> {
    // A trailing slash or dot asks for a folder; the kind of what is opened is checked anyway.
    for part in path.components().rev() {
        match part {
            Component::Normal(part) => stack.push(part.to_owned()),
            Component::ParentDir => stack.push("..".into()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(LookupError::Outside),
        }
    }
    if stack.len() > PARTS_MAX { Err(LookupError::Loop) } else { Ok(()) }
}
