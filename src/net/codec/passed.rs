//! [`Passed`]: a descriptor inside a value of serde.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::net::codec::scope;

/// A file descriptor inside a value, for any format of serde. It needs the feature `serde`.
///
/// `T` is what owns the descriptor: a `File`, an `OwnedFd`, an `Arc` of one, a
/// [`UnixSeqpacket`](crate::UnixSeqpacket), a [`SealedMemory`](crate::SealedMemory). The last two check what a received descriptor is.
///
/// Where the value is encoded, a duplicate goes into the message, and its index into the bytes. So a value can be sent many
/// times, and keeps its descriptor. Where the value is decoded, it takes the descriptor with that index. Each descriptor of
/// a message has to be named once.
///
/// So serialize a value once for each message. `bincode::serialize` of bincode 1 does it twice, to count the bytes first:
/// use `serialize_into`. An untagged enum takes a descriptor with the first variant that names it, also if that variant does
/// not match in the end.
///
/// This works in a [`Framed`](crate::Framed) with [`max_fds`](crate::Framed::max_fds), and in
/// [`encode_with_fds`](crate::codec::encode_with_fds) and
/// [`decode_with_fds`](crate::codec::decode_with_fds). Anywhere else serde gets an error.
///
/// ```
/// # #[cfg(feature = "postcard")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use std::fs::File;
/// use futures_util::{SinkExt, StreamExt};
/// use serde::{Deserialize, Serialize};
/// use tokio_seqpacket::codec::{Passed, Postcard};
/// use tokio_seqpacket::{Framed, UnixSeqpacket};
///
/// #[derive(Serialize, Deserialize)]
/// enum Reply {
///     Opened { name: String, file: Passed<File> },
///     Missing,
/// }
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let mut a = Framed::new(a, Postcard::<Reply>::new()).max_fds(1);
/// let mut b = Framed::new(b, Postcard::<Reply>::new()).max_fds(1);
/// let file = Passed(File::open("/proc/self/comm")?);
/// a.send(Reply::Opened { name: "comm".into(), file }).await?;
///
/// let Reply::Opened { name, file: Passed(file) } = b.next().await.expect("not the end")? else {
///     panic!("another reply");
/// };
/// assert_eq!((&name[..], file.metadata()?.is_file()), ("comm", true));
/// # let _ = Reply::Missing;
/// # Ok(()) }
/// # #[cfg(not(feature = "postcard"))] fn main() {}
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Passed<T>(pub T);

impl<T: AsFd> Serialize for Passed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match scope::pass(self.0.as_fd()) {
            Ok(index) => serializer.serialize_u32(index),
            Err(error) => Err(S::Error::custom(scope::note(error))),
        }
    }
}

impl<'de, T: TryFrom<OwnedFd, Error: Display>> Deserialize<'de> for Passed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let index = u32::deserialize(deserializer)?;
        let taken = scope::take(index).and_then(|fd| {
            T::try_from(fd).map_err(|error| {
                let text = format!("descriptor {index} of the message: {error}");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })
        });
        taken.map(Self).map_err(|error| D::Error::custom(scope::note(error)))
    }
}
