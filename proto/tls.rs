//! Who is who on a connection: certificates, keys and CAs, and what a checked certificate says of its holder.
//!
//! A [`Tls`] holds a program's own certificate with its key, and the CAs of its network. Servers and clients both use it: each shows
//! its own certificate and checks the other one ([`Identity`]). TLS 1.3 only, ALPN `h2` and `http/1.1`. Without a `Tls` nothing here
//! is used.

mod dial;
mod encode;
mod error;
mod expected;
mod handle;
mod identity;
mod loaded;
mod material;
mod shown;
mod signature;
mod stream;
mod text;
mod verify;

pub(crate) use dial::{Remote, Secured};
pub use encode::{certificates_pem, label_uri};
pub use error::TlsError;
pub use expected::Expected;
pub use handle::Tls;
pub use identity::{Identity, IdentityError, Serial};
pub use loaded::ClientAuth;
pub use material::{Pem, TlsFiles};
pub use shown::shown_chain;
pub use signature::Signature;
#[cfg(feature = "server")]
pub(crate) use stream::{MaybeTls, described};
