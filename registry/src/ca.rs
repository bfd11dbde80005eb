//! The registry as a small certificate authority, in a folder of its own: it gives certificates to those who have a token, renews them, and
//! says which of them are revoked.
//!
//! `ledger` decides: it only computes. `ledger_file` keeps what was decided, or `shared_ledger`, in `rows` that several authorities share.
//! `generations` are the keys and certificates of the authority itself, one file each. `certificates` are what is signed. `stored` stores first
//! and applies then, `authority` is what can be asked for, `messages` are its calls. `signer` is an authority without a ledger.

mod authority;
mod certificates;
mod codec;
mod error;
mod generations;
mod ledger;
mod ledger_file;
mod messages;
mod rows;
mod shared_ledger;
mod signer;
mod stored;

pub use authority::{Authority, CA_ROTATE_AFTER, CERTIFICATE_LIFE, CaSettings, Enrolled, NewToken, Proof, RevokedName, Trust};
pub use error::CaError;
pub use generations::{CaCertificate, OVERLAP, certificates_in};
pub use ledger::{Refusal, Revoked, Subject, TOKEN_LIFE_MAX, TOKEN_USES_MAX, Token};
pub use rows::{News, Row, SharedRows};
pub use signer::{Signer, operator_of_folder, rotate_in_folder};

#[cfg(test)]
mod tests;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use codec::check_any_bytes;
