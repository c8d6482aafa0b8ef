//! Owned buffers in ten minutes.
//!
//! `send` and `recv` borrow their buffers. The `*_owned` calls take the buffer and give it back together
//! with the result, as tokio-uring does. Reasons to use them:
//!
//! - They report more about a message: its whole length, whether it was truncated, whether it was the end of the stream
//!   ([`MessageInfo`]). Those with ancillary data report whether that was truncated, too.
//! - Ancillary data comes as values ([`AncillaryBuffer`]), not as bytes to parse.
//! - A send over 4 KiB that has to wait copies nothing: the kernel reads from the buffer that was given.
//!
//! Speed is no reason: owned calls are some 5 % behind borrowed ones in the median row of BENCHMARKS.md. With one
//! file descriptor per message, and with 1024 connections on two runtimes, they are 22 % behind. A receive is one `recv(2)`. It is
//! a `recvmsg(2)`, which takes some 100 ns more, in vectored and `try_*_owned` forms. For owned buffers it is one, too, once
//! the socket had a receive with capacity for ancillary data.
//!
//! # Send, receive, use again
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::UnixSeqpacket;
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//!
//! // The result comes first, then the buffer, also if the call failed.
//! let (sent, buffer) = a.send_owned(b"hello".to_vec()).await;
//! assert_eq!(sent?, 5);
//! assert_eq!(buffer, b"hello");
//!
//! // A vector receives into its capacity, and its length is what has been received.
//! let (received, buffer) = b.recv_owned(Vec::with_capacity(64)).await;
//! assert_eq!(received?.bytes_read(), 5);
//! assert_eq!(buffer, b"hello");
//! # Ok(()) }
//! ```
//!
//! A send takes the initialized bytes of its buffer: the length of a vector, not its capacity. Literals are
//! buffers, too.
//!
//! In a loop the same buffer can be used again. It keeps its length if it was longer than the message. So clear
//! it, or use [`bytes_read`](crate::MessageInfo::bytes_read):
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # use tokio_seqpacket::UnixSeqpacket;
//! # let (a, b) = UnixSeqpacket::pair()?;
//! a.send_owned("a long message").await.0?;
//! a.send_owned("short").await.0?;
//! drop(a);
//!
//! let mut buffer = Vec::with_capacity(64);
//! let mut seen = Vec::new();
//! loop {
//!     let received;
//!     (received, buffer) = b.recv_owned(buffer).await;
//!     let info = received?;
//!     if info.bytes_read() == 0 {
//!         break;
//!     }
//!     seen.push(buffer[..info.bytes_read()].to_vec());
//!     buffer.clear();
//! }
//! assert_eq!(seen, [&b"a long message"[..], b"short"]);
//! # Ok(()) }
//! ```
//!
//! # A part of a buffer
//!
//! [`slice`](crate::buf::BoundedBuf::slice) limits a buffer to a range of it. The call returns the slice, and
//! `into_inner` the whole buffer.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # use tokio_seqpacket::UnixSeqpacket;
//! use tokio_seqpacket::buf::BoundedBuf;
//!
//! # let (a, b) = UnixSeqpacket::pair()?;
//! let (sent, slice) = a.send_owned(b"header:body".to_vec().slice(7..)).await;
//! assert_eq!(sent?, 4);
//! assert_eq!(slice.into_inner(), b"header:body");
//!
//! // Behind the bytes that are in the vector already.
//! let (received, slice) = b.recv_owned({
//!     let mut buffer = Vec::with_capacity(64);
//!     buffer.extend_from_slice(b"got: ");
//!     buffer.slice(5..)
//! }).await;
//! assert_eq!(received?.bytes_read(), 4);
//! assert_eq!(slice.into_inner(), b"got: body");
//! # Ok(()) }
//! ```
//!
//! # Header and body apart
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # use tokio_seqpacket::UnixSeqpacket;
//! # let (a, b) = UnixSeqpacket::pair()?;
//! let (sent, _) = a.send_owned_vectored(vec![b"head".to_vec(), b"the body".to_vec()]).await;
//! assert_eq!(sent?, 12);
//!
//! let parts = vec![Vec::with_capacity(4), Vec::with_capacity(64)];
//! let (received, parts) = b.recv_owned_vectored(parts).await;
//! assert_eq!(received?.bytes_read(), 12);
//! assert_eq!(parts, [&b"head"[..], b"the body"]);
//! # Ok(()) }
//! ```
//!
//! # What is known of a message
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # use tokio_seqpacket::UnixSeqpacket;
//! # let (a, b) = UnixSeqpacket::pair()?;
//! a.send(b"too long for what follows").await?;
//! let (received, buffer) = b.recv_owned(Vec::with_capacity(8)).await;
//! let info = received?;
//! assert!(info.truncated());
//! assert_eq!((info.bytes_read(), info.message_len()), (8, 25));
//! assert_eq!(buffer, b"too long");
//! # Ok(()) }
//! ```
//!
//! The rest of a truncated message is lost. Where lengths are not known, peek first:
//! [`peek`](crate::UnixSeqpacket::peek) with an empty buffer returns the length of the next message.
//!
//! # With descriptors and credentials
//!
//! The `*_with_ancillary` forms take and return an [`AncillaryBuffer`] as well: see
//! [descriptors](super::descriptors).
//!
//! # Which buffers
//!
//! Any type that implements [`BoundedBuf`](crate::buf::BoundedBuf) (to send) or
//! [`BoundedBufMut`](crate::buf::BoundedBufMut) (to receive into) and is `Send`: `Vec<u8>`, slices
//! of it, `&'static [u8]` and `&'static str` for sending, `Bytes` and `BytesMut` with the feature `bytes`.
//! The traits are tokio-uring's, so buffers written for that work here. They are `unsafe` to implement:
//! the memory has to stay where it is while the kernel may access it.
//!
//! # Many messages
//!
//! [`Messages`](crate::Messages) receives many messages with one call, each in a buffer that it owns.
//! [`OwnedSendBatch`](crate::OwnedSendBatch) owns messages and sends them with one call. Neither needs a lifetime, so
//! both can be fields:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::io;
//! use tokio_seqpacket::{Message, Messages, MessagesOptions, OwnedSendBatch, UnixSeqpacket};
//!
//! struct Echo {
//!     requests: Messages,
//!     answers: OwnedSendBatch<Message>,
//! }
//!
//! impl Echo {
//!     fn new(socket: UnixSeqpacket) -> io::Result<Self> {
//!         let requests = Messages::new(socket, MessagesOptions::new())?;
//!         Ok(Self { requests, answers: OwnedSendBatch::new() })
//!     }
//!
//!     async fn serve(mut self) -> io::Result<()> {
//!         while let Some(request) = self.requests.next().await {
//!             self.answers.push(request?);
//!             // Those that came along with it.
//!             while let Some(request) = self.requests.next_buffered() {
//!                 self.answers.push(request);
//!             }
//!             self.answers.send(self.requests.get_ref()).await?;
//!             // The stream gets its buffers back.
//!             self.answers.clear();
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # let (a, b) = UnixSeqpacket::pair()?;
//! let serving = tokio::spawn(Echo::new(b)?.serve());
//! for len in 0..10 {
//!     a.send(&[7; 10][..len]).await?;
//! }
//! for len in 0..10 {
//!     assert_eq!(a.recv(&mut [0; 16]).await?, len);
//! }
//! drop(a);
//! serving.await??;
//! # Ok(()) }
//! ```
//!
//! # Dropped futures
//!
//! The buffer is lost with the future, the message is not: see [cancel safety](super::cancel_safety).
//! If a buffer must not be lost, use `try_recv_owned` after
//! [`readable`](crate::UnixSeqpacket::readable): no buffer is given away while waiting.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # use tokio_seqpacket::UnixSeqpacket;
//! # let (a, b) = UnixSeqpacket::pair()?;
//! # a.send(b"message").await?;
//! let mut buffer = Vec::with_capacity(64);
//! let info = loop {
//!     b.readable().await?; // may be dropped at any time
//!     let received;
//!     (received, buffer) = b.try_recv_owned(buffer);
//!     match received {
//!         Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
//!         received => break received?,
//!     }
//! };
//! assert_eq!(info.bytes_read(), 7);
//! # drop(buffer); Ok(()) }
//! ```
//!
//! [`MessageInfo`]: crate::MessageInfo
//! [`AncillaryBuffer`]: crate::ancillary::AncillaryBuffer
