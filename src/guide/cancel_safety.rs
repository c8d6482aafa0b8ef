//! Cancel safety: what a dropped future leaves behind.
//!
//! A future is dropped unfinished by `select!` when another branch was faster, by a timeout, by
//! `JoinHandle::abort`, or with the runtime. Every call here may be dropped at any point:
//!
//! | dropped | what is certain | what is not |
//! |---|---|---|
//! | a receive | no message is lost: bytes, descriptors, flags go to the next receive, in order | an owned buffer is lost with the future |
//! | a send | the message was sent whole, or never will be; it cannot appear behind one that was sent later | which of the two it was |
//! | [`SendBatch::send`](crate::SendBatch::send) | nothing is lost or doubled; the next call continues at `sent()` | |
//! | [`OwnedSendBatch::send`](crate::OwnedSendBatch::send) | the same; all messages behind `sent()` are unsent | |
//! | [`Messages::next`](crate::Messages::next) | the message is still in the stream | |
//! | `accept` | the connection stays in the queue | |
//! | `connect` | the socket is closed | whether the listener has seen it |
//! | `peek`, `readable`, `writable` | nothing has changed | |
//!
//! This holds on both backends. On io_uring a batch may have received a message when the future that waited for it is dropped.
//! The message waits in the socket for the next call then. So do descriptors that came with it, once some receive of the socket
//! had capacity for ancillary data, or with [`Options::keep_ancillary`](crate::Options::keep_ancillary).
//!
//! # A receive in `select!`
//!
//! The future can be made anew in each turn of the loop. It need not be pinned outside.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use tokio_seqpacket::UnixSeqpacket;
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! let mut ticks = tokio::time::interval(Duration::from_micros(10));
//! let mut buffer = [0; 64];
//! let mut turns = 0;
//! let len = loop {
//!     tokio::select! {
//!         // Nothing has come yet: this receive is dropped again and again.
//!         received = b.recv(&mut buffer) => break received?,
//!         _ = ticks.tick() => {
//!             turns += 1;
//!             if turns == 10 {
//!                 a.send(b"at last").await?;
//!             }
//!         }
//!     }
//! };
//! assert_eq!(&buffer[..len], b"at last");
//! # Ok(()) }
//! ```
//!
//! # A send with a timeout
//!
//! The caller does not know whether a dropped send was sent. Where that matters, do not drop it: let it
//! finish, close the connection, or number the messages so that the peer notices gaps.
//! [`try_send`](crate::UnixSeqpacket::try_send) never waits, and its answer is final:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::io::ErrorKind;
//! use std::time::Duration;
//! use tokio_seqpacket::UnixSeqpacket;
//!
//! let (a, _b) = UnixSeqpacket::pair()?;
//! let mut queued = 0;
//! while a.try_send(b"message").is_ok() {
//!     queued += 1; // until the peer's queue is full
//! }
//! assert!(queued > 0);
//!
//! let waiting = a.send(b"one more");
//! assert!(tokio::time::timeout(Duration::from_millis(1), waiting).await.is_err());
//! let refused = a.try_send(b"one more").unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::WouldBlock);
//! # Ok(()) }
//! ```
//!
//! To wait for capacity and still know the result, wait with [`writable`](crate::UnixSeqpacket::writable), which may be
//! dropped, and then call `try_send`.
//!
//! # Batches
//!
//! A [`SendBatch`](crate::SendBatch) counts the messages that were sent, also if the call that sent them was dropped:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # use std::time::Duration;
//! # use tokio_seqpacket::UnixSeqpacket;
//! let (a, b) = UnixSeqpacket::pair()?;
//! let messages: Vec<Vec<u8>> = (0..2000_u32).map(|n| n.to_ne_bytes().to_vec()).collect();
//! let mut batch = a.batch();
//! for message in &messages {
//!     batch.push(message);
//! }
//! // The peer does not read: the queue fills up.
//! assert!(tokio::time::timeout(Duration::from_millis(1), batch.send()).await.is_err());
//! let sent = batch.sent();
//! assert!(sent > 0 && sent < 2000);
//!
//! // Once it reads, the rest follows, each message once.
//! let reading = tokio::spawn(async move {
//!     let mut buffer = [0; 4];
//!     for n in 0..2000_u32 {
//!         assert_eq!(b.recv(&mut buffer).await.unwrap(), 4);
//!         assert_eq!(u32::from_ne_bytes(buffer), n);
//!     }
//! });
//! batch.send().await?;
//! assert_eq!(batch.sent(), 2000);
//! reading.await.unwrap();
//! # Ok(()) }
//! ```
//!
//! After a dropped call the next message keeps its place in the send queue, and may go out before the next call: `sent()` counts
//! it. An [`OwnedSendBatch`](crate::OwnedSendBatch) is not bound to a socket, so it leaves the queue: what `sent()` does not count
//! stays in the batch until the next call, on this or another socket.
//!
//! # Streams
//!
//! A dropped [`Messages::next`](crate::Messages::next) leaves the message in the stream, and a dropped stream leaves its messages to
//! the next receives of the socket, with their descriptors. [`Messages::into_inner`](crate::Messages::into_inner) does the
//! same and returns the socket:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # use tokio_seqpacket::{Messages, MessagesOptions, UnixSeqpacket};
//! let (a, b) = UnixSeqpacket::pair()?;
//! for _ in 0..3 {
//!     a.send(b"message").await?;
//! }
//! let mut messages = Messages::new(b, MessagesOptions::new())?;
//! assert_eq!(messages.next().await.unwrap()?.len(), 7);
//!
//! // However many of the others it had received.
//! let b = messages.into_inner();
//! for _ in 0..2 {
//!     assert_eq!(b.recv(&mut [0; 16]).await?, 7);
//! }
//! # Ok(()) }
//! ```
//!
//! # What is not covered
//!
//! - [`into_raw_fd`](crate::UnixSeqpacket::into_raw_fd) loses what a dropped stream of messages has left, and on
//!   io_uring a message that a dropped receive has left. [`try_into_fd`](crate::UnixSeqpacket::try_into_fd) refuses instead.
//! - [`Framed`] (feature `codec`) holds a message that was given to the sink and not flushed. It is sent with the next
//!   flush, or never.
//!
// Without the feature there is nothing to link to.
#![cfg_attr(feature = "codec", doc = "[`Framed`]: crate::Framed")]
#![cfg_attr(not(feature = "codec"), doc = "[`Framed`]: crate#features")]
