//! Codecs whose items are those of another codec with what came beside the bytes.

use std::os::fd::OwnedFd;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::net::codec::scope;
use crate::types::ucred::UCred;

/// A codec whose items are those of `C`, each with the descriptors of its message.
///
/// The item is a pair: `(item of C, Vec<OwnedFd>)`. Without [`Framed::max_fds`](crate::Framed::max_fds) decoding fails, and so
/// does encoding with a descriptor. Descriptors that `C` takes itself are not in the vector.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use std::fs::File;
/// use futures_util::{SinkExt, StreamExt};
/// use tokio_seqpacket::codec::WithFds;
/// use tokio_seqpacket::{Framed, UnixSeqpacket};
/// use tokio_util::codec::LinesCodec;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let mut a = Framed::new(a, WithFds(LinesCodec::new())).max_fds(2);
/// let mut b = Framed::new(b, WithFds(LinesCodec::new())).max_fds(2);
/// a.send(("a file", vec![File::open("/proc/self/comm")?.into()])).await.unwrap();
/// let (line, mut fds) = b.next().await.expect("not the end").unwrap();
/// let file = File::from(fds.remove(0));
/// assert_eq!((&line[..], file.metadata()?.is_file()), ("a file", true));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct WithFds<C>(pub C);

impl<I, C: Encoder<I>> Encoder<(I, Vec<OwnedFd>)> for WithFds<C> {
    type Error = C::Error;

    fn encode(
        &mut self,
        (item, fds): (I, Vec<OwnedFd>),
        to: &mut BytesMut,
    ) -> Result<(), C::Error> {
        self.0.encode(item, to)?;
        for fd in fds {
            scope::pass_owned(fd)?;
        }
        Ok(())
    }
}

impl<C: Decoder> WithFds<C> {
    fn pair(item: Option<C::Item>) -> Result<Option<<Self as Decoder>::Item>, C::Error> {
        item.map(|item| Ok((item, scope::take_all()?))).transpose()
    }
}

impl<C: Decoder> Decoder for WithFds<C> {
    type Item = (C::Item, Vec<OwnedFd>);
    type Error = C::Error;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Self::Item>, C::Error> {
        Self::pair(self.0.decode(from)?)
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<Self::Item>, C::Error> {
        Self::pair(self.0.decode_eof(from)?)
    }
}

/// A codec whose received items are those of `C`, each with the credentials of its sender.
///
/// The item is a pair: `(item of C, UCred)`. It needs
/// [`set_pass_credentials`](crate::UnixSeqpacket::set_pass_credentials), best on the listener, and
/// [`Framed::max_fds`](crate::Framed::max_fds), which may be 0. A message without credentials is an error. What the credentials prove is in
/// [`guide::credentials`](crate::guide::credentials). It sends what `C` sends.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use futures_util::StreamExt;
/// use tokio_seqpacket::codec::WithCredentials;
/// use tokio_seqpacket::{Framed, UCred, UnixSeqpacket};
/// use tokio_util::codec::LinesCodec;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// b.set_pass_credentials(true)?;
/// let mut b = Framed::new(b, WithCredentials(LinesCodec::new())).max_fds(0);
/// a.send(b"it is me\n").await?;
/// let (line, sender) = b.next().await.expect("not the end").unwrap();
/// assert_eq!((&line[..], sender), ("it is me", UCred::from_current_process()));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct WithCredentials<C>(pub C);

impl<I, C: Encoder<I>> Encoder<I> for WithCredentials<C> {
    type Error = C::Error;

    fn encode(&mut self, item: I, to: &mut BytesMut) -> Result<(), C::Error> {
        self.0.encode(item, to)
    }
}

impl<C: Decoder> WithCredentials<C> {
    fn pair(item: Option<C::Item>) -> Result<Option<<Self as Decoder>::Item>, C::Error> {
        item.map(|item| Ok((item, scope::credentials()?))).transpose()
    }
}

impl<C: Decoder> Decoder for WithCredentials<C> {
    type Item = (C::Item, UCred);
    type Error = C::Error;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Self::Item>, C::Error> {
        Self::pair(self.0.decode(from)?)
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<Self::Item>, C::Error> {
        Self::pair(self.0.decode_eof(from)?)
    }
}
