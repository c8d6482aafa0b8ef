//! [`Framed`]: a codec of tokio-util over a socket, one frame per message.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_core::Stream;
use futures_sink::Sink;
use tokio_util::codec::{Decoder, Encoder};

use crate::ancillary::AncillaryBuffer;
use crate::ancillary::wire::{MAX_CONTROL, MAX_FDS};
use crate::buf::owned::{self, Capacity, One, Scatter};
use crate::buf::{BoundedBuf, Slice};
use crate::net::codec::scope;
use crate::net::send_error::SEND_BUFFER_OVERHEAD;
use crate::net::socket::UnixSeqpacket;
use crate::sys::ONE_PIECE;
use crate::types::message_info::MessageInfo;
use crate::util::coop as budget;

/// The longest message without [`Framed::with_max_message`] or [`Framed::with_capacity`], in bytes.
const DEFAULT_CAPACITY: usize = 64 << 10;

/// A length in bytes that any socket can send: the kernel makes no send buffer smaller than some 4.5 KiB (`SOCK_MIN_SNDBUF`).
const ALWAYS_SENDABLE: usize = 4 << 10;

/// The memory that small messages share, in bytes. It is freed with the last of them.
const SHARED: usize = 8 << 10;

/// Memory up to this size is kept for the next message to encode.
const KEPT: usize = 64 << 10;

/// A [`Stream`] and [`Sink`] of values over a socket, which needs the feature `codec`.
///
/// The codec turns each value into one message and each message into one value. `S` is a socket, an
/// [`Arc`](std::sync::Arc) of one, or an owned half. The other calls of the socket are available
/// through [`get_ref`](Self::get_ref).
///
/// Codecs written for byte streams work unchanged, `LengthDelimitedCodec` too. Messages keep their
/// boundaries, so a codec that takes all bytes as the frame is enough, such as `BytesCodec`.
///
/// A message has at most 64 KiB, in both directions. [`with_max_message`](Self::with_max_message) sets
/// another limit, and makes the socket's send buffer large enough for it. Give both ends the same.
///
/// As a stream it ends with the peer's stream. A message yields an error and is lost if it exceeds
/// the limit, does not decode, or has bytes behind its frame. The stream goes on with the next message. A
/// codec that keeps half a frame, as `LengthDelimitedCodec` does, may misread what follows. An empty
/// message that decodes to nothing is skipped. Descriptors that come with a message are closed, unless
/// [`max_fds`](Self::max_fds) takes them along for the codec: see [`codec`](crate::codec).
///
/// Messages of up to 2 KiB share memory in blocks of 8 KiB. A block is freed with the last frame that
/// refers to it.
///
/// As a sink it holds one message. A value whose message exceeds the limit, or what the socket can
/// send, is `InvalidInput` at once, and nothing is sent. The sink goes on with the next value. Closing the sink shuts down writing, which ends the peer's
/// stream. Where the codec encodes several types, the call to close names one, as below.
///
/// # Cancel safety
/// After a future is dropped, each received message was either yielded or is still in the socket. A
/// value that the sink has not taken yet is dropped with the future. A message that the sink holds
/// goes out with the next flush, or never.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use futures_util::{SinkExt, StreamExt};
/// use tokio_seqpacket::{Framed, UnixSeqpacket};
/// use tokio_util::codec::LinesCodec;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let (mut a, mut b) = (Framed::new(a, LinesCodec::new()), Framed::new(b, LinesCodec::new()));
/// a.send("a line").await.unwrap();
/// assert_eq!(b.next().await.unwrap().unwrap(), "a line");
/// SinkExt::<&str>::close(&mut a).await.unwrap();
/// assert!(b.next().await.is_none());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Framed<C, S = UnixSeqpacket> {
    socket: S,
    codec: C,
    incoming: Incoming,
    /// The encoded message, if there is one that has not been sent yet. Its memory is used again.
    outgoing: BytesMut,
    /// What goes out with that message.
    outgoing_ancillary: AncillaryBuffer,
    is_sending: bool,
    /// The longest message that the socket is known to send.
    sendable: usize,
    /// The most descriptors of a message, if ancillary data is taken along.
    max_fds: Option<usize>,
}

/// Memory to receive into. Between two calls it holds no message.
#[derive(Debug)]
struct Incoming {
    capacity: usize,
    buffer: BytesMut,
    /// Memory that small messages share, so that most of them need no allocation.
    shared: BytesMut,
    /// What came with the message that is decoded next.
    ancillary: AncillaryBuffer,
}

impl Incoming {
    /// Receives the next message, `None` at end of stream. With `max_fds`, what comes with it goes to `ancillary`.
    fn poll_message(
        &mut self,
        socket: &UnixSeqpacket,
        max_fds: Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<BytesMut>>> {
        ready!(socket.poll_stream_end(cx));
        let info = match max_fds {
            None => ready!(self.poll_plain(socket, cx))?,
            Some(max_fds) => ready!(self.poll_with_fds(socket, max_fds, cx))?,
        };
        if info.truncated() {
            self.buffer.clear();
            self.ancillary.clear();
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "message of {} bytes exceeds the capacity of {} bytes (Framed::with_max_message)",
                    info.message_len(),
                    self.capacity
                ),
            )));
        }
        if info.message_len() == 0 && info.end_of_stream() != Some(false) {
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(Ok(Some(self.take_message())))
    }

    fn poll_plain(
        &mut self,
        socket: &UnixSeqpacket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<MessageInfo>> {
        let mut slice = self.lend();
        let mut memory = Capacity::of(&mut slice);
        let received = socket.inner.poll_recv_plain(cx, &mut memory);
        let written = memory.written();
        owned::note_written(&mut slice, written);
        self.buffer = slice.into_inner();
        received
    }

    /// Receives a message and what came with it. A function of its own, so that messages without descriptors need no memory
    /// for control data.
    #[inline(never)]
    fn poll_with_fds(
        &mut self,
        socket: &UnixSeqpacket,
        max_fds: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<MessageInfo>> {
        let mut scatter = Scatter::new(One(self.lend()));
        let received = socket.inner.poll_recv_owned(cx, &mut scatter, &mut self.ancillary);
        self.buffer = scatter.into_parts().0.into_inner();
        let info = ready!(received)?;
        let fds = self.ancillary.fds().len();
        // More of them can come if another user of the socket has changed its limit.
        if info.ancillary_truncated() || fds > max_fds {
            self.buffer.clear();
            self.ancillary.clear();
            return Poll::Ready(Err(refused_fds(fds, max_fds.min(socket.max_fds()))));
        }
        Poll::Ready(Ok(info))
    }

    fn lend(&mut self) -> Slice<BytesMut> {
        self.buffer.reserve(self.capacity);
        owned::lend(std::mem::take(&mut self.buffer).slice(..self.capacity)).0
    }

    /// Takes the message out. A large one takes the buffer along. Others are copied, so that the buffer
    /// is kept.
    fn take_message(&mut self) -> BytesMut {
        let len = self.buffer.len();
        if len > self.capacity / 4 {
            return std::mem::take(&mut self.buffer);
        }
        let message = if len > SHARED / 4 {
            BytesMut::from(&self.buffer[..])
        } else {
            if self.shared.capacity() < len {
                self.shared.reserve(SHARED);
            }
            self.shared.extend_from_slice(&self.buffer);
            self.shared.split()
        };
        self.buffer.clear();
        message
    }
}

impl<C, S: AsRef<UnixSeqpacket>> Framed<C, S> {
    /// Wraps `socket`, for messages of up to 64 KiB.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use futures_util::SinkExt;
    /// use tokio_seqpacket::{Framed, UnixSeqpacket};
    /// use tokio_util::codec::BytesCodec;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut frames = Framed::new(a, BytesCodec::new());
    /// frames.send(bytes::Bytes::from_static(b"frame")).await?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 5);
    /// # Ok(()) }
    /// ```
    pub fn new(socket: S, codec: C) -> Self {
        Self::with_capacity(socket, codec, DEFAULT_CAPACITY)
    }

    /// Wraps `socket`, for messages of up to `bytes` bytes in both directions.
    ///
    /// The socket stays as it is. If its send buffer is too small for such a message, the sink refuses
    /// it. [`with_max_message`](Self::with_max_message) changes that.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use futures_util::StreamExt;
    /// use tokio_seqpacket::{Framed, UnixSeqpacket};
    /// use tokio_util::codec::BytesCodec;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut frames = Framed::with_capacity(b, BytesCodec::new(), 8);
    /// a.send(b"too long for it").await?;
    /// a.send(b"short").await?;
    /// assert!(frames.next().await.unwrap().is_err());
    /// assert_eq!(frames.next().await.unwrap()?, "short");
    /// # Ok(()) }
    /// ```
    pub fn with_capacity(socket: S, codec: C, bytes: usize) -> Self {
        Self {
            socket,
            codec,
            incoming: Incoming {
                capacity: bytes,
                buffer: BytesMut::new(),
                shared: BytesMut::new(),
                ancillary: AncillaryBuffer::new(),
            },
            outgoing: BytesMut::new(),
            outgoing_ancillary: AncillaryBuffer::new(),
            is_sending: false,
            sendable: bytes.min(ALWAYS_SENDABLE),
            max_fds: None,
        }
    }

    /// Wraps `socket`, for messages of up to `bytes` bytes in both directions, and makes its send buffer
    /// large enough.
    ///
    /// This suits a protocol with a longest message: both ends name the same length, as the codec does if
    /// it has a limit of its own. The send buffer (`SO_SNDBUF`) never becomes smaller. It belongs to the
    /// socket, and its other users share it. The buffer to receive into takes `bytes` bytes from the first receive
    /// on. A half that only sends needs none.
    ///
    /// # Errors
    /// `InvalidInput` if the socket cannot send messages of that length. The error names the limit: that of the
    /// kernel, some 4 MiB, or that of the system for send buffers, `net.core.wmem_max`. For others see
    /// [`set_send_buffer_size`](UnixSeqpacket::set_send_buffer_size).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use futures_util::{SinkExt, StreamExt};
    /// use tokio_seqpacket::{Framed, UnixSeqpacket};
    /// use tokio_util::codec::LengthDelimitedCodec;
    ///
    /// const LONGEST: usize = 300 << 10;
    /// // On a byte stream its limit would be 8 MiB.
    /// let codec = LengthDelimitedCodec::builder().max_frame_length(LONGEST - 4).new_codec();
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut a = Framed::with_max_message(a, codec.clone(), LONGEST)?;
    /// let mut b = Framed::with_max_message(b, codec, LONGEST)?;
    /// a.send(bytes::Bytes::from(vec![7; LONGEST - 4])).await?;
    /// assert_eq!(b.next().await.expect("not the end")?.len(), LONGEST - 4);
    ///
    /// let (a, _b) = UnixSeqpacket::pair()?;
    /// let refused = Framed::with_max_message(a, LengthDelimitedCodec::new(), 8 << 20).unwrap_err();
    /// assert!(refused.to_string().contains("SealedMemory"));
    /// # Ok(()) }
    /// ```
    pub fn with_max_message(socket: S, codec: C, bytes: usize) -> io::Result<Self> {
        ensure_sendable(socket.as_ref(), bytes)?;
        Ok(Self { sendable: bytes, ..Self::with_capacity(socket, codec, bytes) })
    }

    /// Takes ancillary data along: up to `max_fds` file descriptors with each message, and credentials.
    ///
    /// Without this call descriptors are closed, and none can be sent. With it the codecs in
    /// [`codec`](crate::codec) pass them. A limit above 253 (`SCM_MAX_FD`) counts as that. 0 suits a codec that needs
    /// credentials only.
    ///
    /// A value with more descriptors is refused by the sink, and nothing is sent. A received message with more
    /// is an error of the stream, which goes on with the next message. So is one whose value does not
    /// name each of its descriptors. All descriptors of a refused message are closed.
    ///
    /// The limit on what comes is that of the socket ([`set_max_fds`](UnixSeqpacket::set_max_fds)), which this sets, also where
    /// [`Options::max_fds`](crate::Options::max_fds) was lower. Its other users share it. For values with descriptors in one direction only, the receiving end of
    /// the other one refuses them: [`Options::pass_rights`](crate::Options::pass_rights).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use futures_util::StreamExt;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// use tokio_seqpacket::codec::WithFds;
    /// use tokio_seqpacket::{Framed, UnixSeqpacket};
    /// use tokio_util::codec::LinesCodec;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut b = Framed::new(b, WithFds(LinesCodec::new())).max_fds(1);
    /// for count in [2, 1] {
    ///     let files = (0..count).map(|_| File::open("/dev/null").map(Into::into));
    ///     let ancillary = files.collect::<std::io::Result<AncillaryBuffer>>()?;
    ///     a.send_owned_with_ancillary("files", ancillary).await.0?;
    /// }
    /// let refused = b.next().await.expect("not the end").unwrap_err();
    /// assert!(refused.to_string().contains("max_fds"));
    /// let (_, files) = b.next().await.expect("not the end").unwrap();
    /// assert_eq!(files.len(), 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn max_fds(mut self, max_fds: usize) -> Self {
        let max_fds = max_fds.min(MAX_FDS);
        self.socket.as_ref().set_max_fds(max_fds);
        self.max_fds = Some(max_fds);
        self
    }

    /// Returns the socket.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Framed, UnixSeqpacket};
    /// # use tokio_util::codec::BytesCodec;
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let frames = Framed::new(a, BytesCodec::new());
    /// frames.get_ref().set_send_buffer_size(1 << 20)?;
    /// assert_eq!(frames.get_ref().peer_cred()?.pid(), Some(std::process::id() as i32));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn get_ref(&self) -> &UnixSeqpacket {
        self.socket.as_ref()
    }

    /// Returns the codec.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Framed, UnixSeqpacket};
    /// # use tokio_util::codec::LinesCodec;
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let lines = Framed::new(a, LinesCodec::new_with_max_length(80));
    /// assert_eq!(lines.codec().max_length(), 80);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// Returns the codec for changes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use futures_util::SinkExt;
    /// # use tokio_seqpacket::{Framed, UnixSeqpacket};
    /// # use tokio_util::codec::LengthDelimitedCodec;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut frames = Framed::new(a, LengthDelimitedCodec::new());
    /// frames.codec_mut().set_max_frame_length(4);
    /// assert!(frames.send(&b"longer than that"[..]).await.is_err());
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn codec_mut(&mut self) -> &mut C {
        &mut self.codec
    }

    /// Returns the socket. A message that was not flushed is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use futures_util::StreamExt;
    /// # use tokio_seqpacket::{Framed, UnixSeqpacket};
    /// # use tokio_util::codec::LinesCodec;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// a.send(b"a greeting\n").await?;
    /// a.send(b"\0\x01\x02").await?;
    /// let mut lines = Framed::new(b, LinesCodec::new());
    /// assert_eq!(lines.next().await.unwrap().unwrap(), "a greeting");
    /// // The next message is not text.
    /// let b = lines.into_inner();
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 3);
    /// # Ok(()) }
    /// ```
    pub fn into_inner(self) -> S {
        self.socket
    }

    /// Checks the length of a message before it is sent.
    fn check_sendable(&mut self, len: usize) -> io::Result<()> {
        if len <= self.sendable {
            return Ok(());
        }
        let refused = |limit: usize, whose: &str| {
            let text = format!(
                "message of {len} bytes exceeds the limit of {limit} bytes of this {whose} \
                 (Framed::with_max_message)"
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        if len > self.incoming.capacity {
            return refused(self.incoming.capacity, "Framed");
        }
        let limit = self.socket.as_ref().max_message_size()?;
        if len > limit {
            return refused(limit, "socket's send buffer");
        }
        self.sendable = limit.min(self.incoming.capacity);
        Ok(())
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_sending {
            return Poll::Ready(Ok(()));
        }
        let socket = self.socket.as_ref();
        let sent = match self.max_fds {
            None => ready!(socket.poll_send(cx, &self.outgoing)),
            Some(_) => {
                ready!(poll_send_with_fds(socket, cx, &self.outgoing, &self.outgoing_ancillary))
            }
        };
        // The message was sent, or refused for good.
        self.is_sending = false;
        if self.max_fds.is_some() {
            self.outgoing_ancillary.clear();
        }
        Poll::Ready(sent.map(drop))
    }
}

impl<C: Decoder + Unpin, S: AsRef<UnixSeqpacket> + Unpin> Stream for Framed<C, S> {
    type Item = Result<C::Item, C::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let message =
                ready!(this.incoming.poll_message(this.socket.as_ref(), this.max_fds, cx))?;
            let Some(mut message) = message else { return Poll::Ready(None) };
            let decode = || this.codec.decode_eof(&mut message);
            let decoded = match this.max_fds {
                None => scope::without_fds(decode),
                Some(_) => {
                    let decoded = scope::decode_with_fds(&mut this.incoming.ancillary, decode);
                    // Closes a pidfd.
                    this.incoming.ancillary.clear();
                    decoded
                }
            };
            match decoded? {
                Some(_) if !message.is_empty() => {
                    let what = format!("{} bytes behind the frame in a message", message.len());
                    return Poll::Ready(Some(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        what,
                    )
                    .into())));
                }
                Some(frame) => return Poll::Ready(Some(Ok(frame))),
                None if message.is_empty() => {}
                None => {
                    let what = "a message that is no whole frame";
                    return Poll::Ready(Some(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        what,
                    )
                    .into())));
                }
            }
        }
    }
}

impl<I, C: Encoder<I> + Unpin, S: AsRef<UnixSeqpacket> + Unpin> Sink<I> for Framed<C, S> {
    type Error = C::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        Poll::Ready(Ok(ready!(self.get_mut().poll_outgoing(cx))?))
    }

    fn start_send(self: Pin<&mut Self>, item: I) -> Result<(), C::Error> {
        let this = self.get_mut();
        if this.is_sending {
            let text =
                "the sink still holds a message: poll_ready has to be called before start_send";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
        }
        if this.outgoing.capacity() > KEPT {
            this.outgoing = BytesMut::new();
        }
        this.outgoing.clear();
        let encode = || this.codec.encode(item, &mut this.outgoing);
        match this.max_fds {
            None => scope::without_fds(encode)?,
            Some(max_fds) => scope::encode_up_to(max_fds, &mut this.outgoing_ancillary, encode)?,
        }
        if let Err(error) = this.check_sendable(this.outgoing.len()) {
            this.outgoing_ancillary.clear();
            return Err(error.into());
        }
        this.is_sending = true;
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        let this = self.get_mut();
        if !this.is_sending {
            return budget::poll_done(cx).map(Ok);
        }
        Poll::Ready(Ok(ready!(this.poll_outgoing(cx))?))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        let this = self.get_mut();
        ready!(this.poll_outgoing(cx))?;
        match this.socket.as_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                Poll::Ready(Err(error.into()))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Makes the send buffer large enough for messages of that length.
fn ensure_sendable(socket: &UnixSeqpacket, len: usize) -> io::Result<()> {
    let refused = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if len > ONE_PIECE {
        return refused(format!(
            "messages of {len} bytes exceed what the kernel can hold in one piece, {ONE_PIECE} bytes \
             (SealedMemory passes more)"
        ));
    }
    if socket.max_message_size()? >= len {
        return Ok(());
    }
    // The kernel doubles it.
    let wanted = (len + SEND_BUFFER_OVERHEAD).div_ceil(2);
    socket.set_send_buffer_size(wanted)?;
    let granted = socket.max_message_size()?;
    if granted >= len {
        return Ok(());
    }
    refused(format!(
        "messages of {len} bytes exceed the limit of {granted} bytes that this system allows for a \
         send buffer (net.core.wmem_max has to be {wanted} or more)"
    ))
}

/// Sends a message and what goes out with it, if that is anything.
#[inline(never)]
fn poll_send_with_fds(
    socket: &UnixSeqpacket,
    cx: &mut Context<'_>,
    message: &[u8],
    ancillary: &AncillaryBuffer,
) -> Poll<io::Result<usize>> {
    if ancillary.is_empty() {
        return socket.poll_send(cx, message);
    }
    let mut control = [0; MAX_CONTROL];
    let len = ancillary.encode(&mut control)?;
    let (parts, control) = ([IoSlice::new(message)], &control[..len]);
    let sent = ready!(socket.inner.poll_send_message(cx, &parts, control));
    Poll::Ready(socket.explained(sent, || message.len(), control))
}

fn refused_fds(came: usize, max_fds: usize) -> io::Error {
    let text = if came < max_fds {
        format!("{came} file descriptors of a message came, and no descriptor was free for others")
    } else {
        format!(
            "a message brought more file descriptors than the limit of {max_fds} (Framed::max_fds)"
        )
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}
