//! [`Postcard`]: values of serde in the format of postcard.

use std::any::type_name;
use std::fmt;
use std::io;
use std::marker::PhantomData;

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Decoder, Encoder};

use crate::ancillary::AncillaryBuffer;
use crate::net::codec::scope;

/// A codec of serde values in the format of postcard, one value a message. It needs the feature `postcard`.
///
/// It sends values of `Out` and receives those of `In`, which is the same type if it is not named. The values may
/// have descriptors in them: see `Passed`. [`Framed`](crate::Framed) limits the length of a message and its descriptors.
///
/// A type that contains itself is decoded by recursion, up to a level for each byte of the message. A long message can thus
/// overflow the stack, which ends the process. Do not receive such a type from a peer that is not trusted.
///
/// # Errors
/// A message that is no value of `In`, or has bytes behind it, is `InvalidData`. A value that cannot be
/// serialized is `InvalidInput`. Nothing is sent then. The text names the type.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use futures_util::{SinkExt, StreamExt};
/// use tokio_seqpacket::codec::Postcard;
/// use tokio_seqpacket::{Framed, UnixSeqpacket};
///
/// let (client, server) = UnixSeqpacket::pair()?;
/// // Questions are numbers, answers are texts.
/// let mut client = Framed::new(client, Postcard::<u64, String>::new());
/// let mut server = Framed::new(server, Postcard::<String, u64>::new());
/// client.send(42).await?;
/// let number = server.next().await.expect("a question")?;
/// server.send(format!("{number} is even")).await?;
/// assert_eq!(client.next().await.expect("an answer")?, "42 is even");
/// # Ok(()) }
/// ```
pub struct Postcard<Out, In = Out>(PhantomData<fn(Out) -> In>);

impl<Out, In> Postcard<Out, In> {
    /// Creates the codec.
    ///
    /// ```
    /// use tokio_seqpacket::codec::Postcard;
    ///
    /// let codec: Postcard<u64, String> = Postcard::new();
    /// # let _ = codec;
    /// ```
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Out: Serialize, In> Encoder<Out> for Postcard<Out, In> {
    type Error = io::Error;

    fn encode(&mut self, value: Out, to: &mut BytesMut) -> io::Result<()> {
        let mut encode = || {
            let encoded = postcard::to_io(&value, to.writer());
            encoded.map(drop).map_err(|error| {
                let text = format!("value of {} not serialized: {error}", type_name::<Out>());
                io::Error::new(io::ErrorKind::InvalidInput, text)
            })
        };
        if scope::is_entered() {
            return encode();
        }
        // For the text of the error, which postcard does not keep.
        scope::encode_up_to(0, &mut AncillaryBuffer::new(), encode)
    }
}

impl<Out, In: DeserializeOwned> Decoder for Postcard<Out, In> {
    type Item = In;
    type Error = io::Error;

    /// Decodes all bytes that are there as one value.
    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<In>> {
        let bytes = from.split();
        let decode = || {
            let invalid = |error| {
                let (len, name) = (bytes.len(), type_name::<In>());
                let text = format!("message of {len} bytes is no value of {name}: {error}");
                io::Error::new(io::ErrorKind::InvalidData, text)
            };
            let (value, rest) = postcard::take_from_bytes(&bytes).map_err(invalid)?;
            if rest.is_empty() {
                return Ok(Some(value));
            }
            let text = format!("{} bytes behind the value in a message", rest.len());
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        };
        if scope::is_entered() {
            return decode();
        }
        scope::decode_with_fds(&mut AncillaryBuffer::new(), decode)
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> io::Result<Option<In>> {
        self.decode(from)
    }
}

// By hand: a derive would ask the same of `Out` and `In`.
impl<Out, In> Default for Postcard<Out, In> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Out, In> Clone for Postcard<Out, In> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Out, In> Copy for Postcard<Out, In> {}

impl<Out, In> fmt::Debug for Postcard<Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postcard")
    }
}
