//! Why a configuration cannot be used.

use std::{fmt, io, path::PathBuf};

/// Most problems of one file that are told; the others come up once these are mended.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A flag or a variable is wrong, or the user asked for the help or the version.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file says what cannot be.
    #[error("{}", Problems { path, problems })]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, at least one.
        problems: Vec<Problem>,
    },
    /// Values of a [`super::Layer`] cannot be used.
    #[error("{problem}")]
    Layer {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
}

impl ConfigurationError {
    /// Whether something is wrong; otherwise the user asked for the help or the version.
    pub fn is_wrong(&self) -> bool {
        !matches!(self, Self::Usage(error) if !error.use_stderr())
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage(_) => None,
            Self::Unreadable { .. } => Some("give a file that this user can read with --config"),
            Self::Wrong { .. } => {
                Some("the keys are the names of the flags: see --help, and --print-config for all with their values")
            }
            Self::Layer { hint, .. } => Some(hint),
        }
    }
}

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub text: String,
}

struct Problems<'a> {
    path: &'a PathBuf,
    problems: &'a [Problem],
}

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, text }) in self.problems.iter().take(PROBLEMS_SHOWN_MAX).enumerate() {
            let end_of_last = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{}:{line}: {text}", self.path.display())?;
        }
        match self.problems.len().saturating_sub(PROBLEMS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}
