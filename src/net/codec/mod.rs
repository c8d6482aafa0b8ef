//! Codecs whose values carry file descriptors and credentials, for [`Framed`](crate::Framed).
//!
//! A codec of tokio-util sees bytes only. What else belongs to a message is available while one is encoded or
//! decoded, on that thread:
//!
//! | what | how |
//! |---|---|
//! | a descriptor inside a value of serde, in any format | [`Passed`] (feature `serde`) |
//! | all descriptors of a message, beside the item of any codec | [`WithFds`] |
//! | the sender's credentials, beside the item of any codec | [`WithCredentials`] |
//! | values of serde in the format of postcard | [`Postcard`] (feature `postcard`) |
//!
//! [`Framed::max_fds`](crate::Framed::max_fds) turns this on, and limits what a message may bring. The calls of a
//! socket do the same with [`encode_with_fds`] and [`decode_with_fds`].
//!
// Without the features there is nothing to link to. With them, the names are in scope.
#![cfg_attr(not(feature = "serde"), doc = "[`Passed`]: crate#features")]
#![cfg_attr(not(feature = "postcard"), doc = "[`Postcard`]: crate#features")]

#[cfg(feature = "serde")]
mod passed;
#[cfg(feature = "postcard")]
mod postcard;
pub(crate) mod scope;
mod with_ancillary;

#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
#[cfg(feature = "serde")]
pub use passed::Passed;
pub use scope::{decode_with_fds, encode_with_fds};
pub use with_ancillary::{WithCredentials, WithFds};
