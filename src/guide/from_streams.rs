//! Coming from a byte stream: `UnixStream`, `AsyncRead` and `LengthDelimitedCodec`.
//!
//! A seqpacket socket is as a Unix stream that keeps the boundaries of messages. What changes is this:
//!
//! | on a stream | here |
//! |---|---|
//! | a header with the length, or a separator | none: one send is one message, and one receive returns it |
//! | `read_exact` and `write_all` loops | a message goes out whole or not at all, and is received by one call |
//! | `LengthDelimitedCodec` in a `Framed` | [`Framed`](#framed) of this crate with `BytesCodec`, or `Postcard` for values |
//! | a frame may have any length | two limits: [the sender's and the receiver's](#both-limits-of-a-message) |
//! | a read of 0 bytes is the end | so it is here, and an empty message is as well: [the end of the stream](#the-end-of-the-stream) |
//! | `accept` returns a stream and an address | it returns the socket: [who has connected](#who-has-connected) |
//! | an empty frame is a header with 0 | an empty message, which `BytesCodec` [skips](#empty-frames) |
//! | a large payload is written in pieces | [sealed memory](#large-payloads) |
//! | `into_split`, `split` | the same names, and often not needed: all calls take `&self` |
//! | a dropped `read_exact` loses its place | [nothing is lost](crate::guide::cancel_safety) |
//!
//! Both ends have to change together: a stream cannot connect to a seqpacket listener (`EPROTOTYPE`).
//!
//! # Line by line
//!
//! What changes in a server and its client, which exchange frames of up to 300 KiB. The rest of the program stays:
//!
//! ```text
//! - use tokio::net::{UnixListener, UnixStream};
//! - use tokio_util::codec::{Framed, LengthDelimitedCodec};
//! + use tokio_seqpacket::{Framed, UnixSeqpacket, UnixSeqpacketListener};
//! + use tokio_util::codec::BytesCodec;
//!
//! - let listener = UnixListener::bind(path)?;
//! - let (stream, _) = listener.accept().await?;
//! - let mut frames = Framed::new(stream, LengthDelimitedCodec::new());
//! + let listener = UnixSeqpacketListener::bind(path)?;
//! + let socket = listener.accept().await?;
//! + let mut frames = Framed::with_max_message(socket, BytesCodec::new(), 300 << 10)?;
//!
//! - let mut frames = Framed::new(UnixStream::connect(path).await?, LengthDelimitedCodec::new());
//! + let socket = UnixSeqpacket::connect(path).await?;
//! + let mut frames = Framed::with_max_message(socket, BytesCodec::new(), 300 << 10)?;
//! ```
//!
//! # Without a length header
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::UnixSeqpacket;
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! // On a stream these would be two frames in a buffer, with a header each.
//! a.send(b"first").await?;
//! a.send(b"second").await?;
//! let mut buffer = [0; 64];
//! let len = b.recv(&mut buffer).await?;
//! assert_eq!(&buffer[..len], b"first");
//! # Ok(()) }
//! ```
//!
//! A buffer that is shorter than the message loses the rest of it. [`recv_owned`](crate::UnixSeqpacket::recv_owned) reports
//! that, and a plain `recv` does not.
//!
//! # Both limits of a message
//!
//! - **The sender's send buffer** (`SO_SNDBUF`) bounds what it can send: some 208 KiB by default, less 32 bytes
//!   ([`max_message_size`](crate::UnixSeqpacket::max_message_size)). A longer message is `InvalidInput`, nothing is sent,
//!   and the connection goes on. [`set_send_buffer_size`](crate::UnixSeqpacket::set_send_buffer_size) raises it, up to twice
//!   `net.core.wmem_max`. The kernel holds at most some 4 MiB in one message.
//! - **The receiver's buffer** bounds what arrives. The rest of a longer message is lost. No option of a
//!   socket changes that, `SO_RCVBUF` neither.
//!
//! The two ends do not know each other's limits. Choose one length for the protocol, and set both by it at both ends. `Framed`
//! has one option for both, `Framed::with_max_message`. It fails at once where the system does not allow that length.
//!
//! | longest message | what it takes |
//! |---|---|
//! | 64 KiB | nothing: it is the limit of `Framed::new` |
//! | some 208 KiB | `Framed::with_max_message`, or a larger buffer to receive into |
//! | some 416 KiB | the same. The send buffer becomes as large as `net.core.wmem_max` allows by default |
//! | 4 MiB | the same, and `net.core.wmem_max` of at least half of the length and 32: 524,304 for 1 MiB |
//! | any length | [sealed memory](#large-payloads), with no privileges and no settings |
//!
//! `net.core.wmem_max` belongs to the system (`sysctl(8)`), also where a program runs in a container. `seqpacket doctor` shows
//! what can be set. A protocol of frames up to 1 MiB that has to work everywhere sends long ones as sealed memory.
//!
//! # Framed
//!
//! [`Framed`] (feature `codec`) is a stream and a sink over any codec of tokio-util. `LengthDelimitedCodec` works. Its header
//! is only needed where the peer expects it, so `BytesCodec` takes its place:
//!
//! ```
//! # #[cfg(feature = "codec")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use bytes::Bytes;
//! use futures_util::{SinkExt, StreamExt};
//! use tokio_seqpacket::{Framed, UnixSeqpacket};
//! use tokio_util::codec::BytesCodec;
//!
//! const LONGEST: usize = 300 << 10;
//! let (a, b) = UnixSeqpacket::pair()?;
//! // Raises the send buffer for it, and receives as much.
//! let mut a = Framed::with_max_message(a, BytesCodec::new(), LONGEST)?;
//! let mut b = Framed::with_max_message(b, BytesCodec::new(), LONGEST)?;
//! a.send(Bytes::from(vec![7; LONGEST])).await?;
//! assert_eq!(b.next().await.expect("not the end")?.len(), LONGEST);
//!
//! // One byte more is an error that names the limit, and the connection goes on.
//! let error = a.send(Bytes::from(vec![7; LONGEST + 1])).await.unwrap_err();
//! assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
//! a.send(Bytes::from_static(b"short")).await?;
//! assert_eq!(b.next().await.expect("not the end")?, "short");
//! # Ok(()) }
//! # #[cfg(not(feature = "codec"))] fn main() {}
//! ```
//!
//! Without that option a `Framed` takes messages of up to 64 KiB, in both directions. A codec with a limit of its own, as
//! `LengthDelimitedCodec` with 8 MiB, is best set to the same length, less its header.
//!
//! # Empty frames
//!
//! `BytesCodec` decodes nothing from no bytes. So `Framed` skips an empty message, and a client that awaits an answer to
//! it waits without end. Where a protocol has empty frames, keep a codec that writes something: `LengthDelimitedCodec`
//! with its header, or `Postcard` with a length inside. Without `Framed`, `recv_owned` and
//! [`Messages`](crate::Messages) return empty messages.
//!
//! ```
//! # #[cfg(feature = "codec")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use bytes::Bytes;
//! use futures_util::{SinkExt, StreamExt};
//! use tokio_seqpacket::{Framed, UnixSeqpacket};
//! use tokio_util::codec::LengthDelimitedCodec;
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! let mut a = Framed::new(a, LengthDelimitedCodec::new());
//! let mut b = Framed::new(b, LengthDelimitedCodec::new());
//! a.send(Bytes::new()).await?;
//! assert!(b.next().await.expect("not the end")?.is_empty());
//! # Ok(()) }
//! # #[cfg(not(feature = "codec"))] fn main() {}
//! ```
//!
//! # The end of the stream
//!
//! A receive returns 0 bytes at the end, after all messages have been received. It does so for an empty message, too. `Framed`
//! and [`Messages`](crate::Messages) tell them apart, and so does
//! [`MessageInfo::end_of_stream`](crate::MessageInfo::end_of_stream). A protocol without empty messages needs none of this.
//!
//! `shutdown(Write)` ends the peer's stream, and answers can still come. A peer that closes with messages unread causes
//! `ECONNRESET` once. What it had sent is still received afterwards:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::io::ErrorKind;
//! use std::net::Shutdown;
//! use tokio_seqpacket::{MessagesOptions, UnixSeqpacket};
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! a.send(b"question").await?;
//! a.send(b"").await?;
//! a.shutdown(Shutdown::Write)?;
//! let mut questions = b.messages(MessagesOptions::new())?;
//! assert_eq!(&questions.next().await.expect("not the end")?[..], b"question");
//! assert_eq!(&questions.next().await.expect("an empty message")?[..], b"");
//! assert!(questions.next().await.is_none());
//! drop(questions);
//! b.send(b"answer").await?;
//! assert_eq!(a.recv(&mut [0; 64]).await?, 6);
//! # Ok(()) }
//! ```
//!
//! # Who has connected
//!
//! [`accept`](crate::UnixSeqpacketListener::accept) returns the socket alone. A client's address is mostly unnamed, and proves nothing:
//! [`peer_addr`](crate::UnixSeqpacket::peer_addr) returns it where it matters. The user and the process are in
//! [`peer_cred`](crate::UnixSeqpacket::peer_cred), see [`guide::credentials`](crate::guide::credentials).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("service.sock");
//! let listener = UnixSeqpacketListener::bind(&path)?;
//! let client = UnixSeqpacket::connect(&path).await?;
//! let socket = listener.accept().await?;
//! assert!(socket.peer_addr()?.is_unnamed());
//! assert_eq!(socket.peer_cred()?.pid(), Some(std::process::id() as i32));
//! # drop(client);
//! # Ok(()) }
//! ```
//!
//! # Large payloads
//!
//! A stream carries gigabytes in pieces. Here a payload beyond the limit of a message goes as memory, beside a message that
//! says what it is. Nothing is copied on the way, and the receiver chooses the largest length it accepts:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::{SealedMemory, UnixSeqpacket};
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! let picture = SealedMemory::new(&vec![7; 10 << 20])?;
//! a.send_large(b"a picture", &picture).await?;
//!
//! let mut buffer = [0; 64];
//! let (info, payload) = b.recv_large(&mut buffer, 64 << 20).await?;
//! assert_eq!(&buffer[..info.bytes_read()], b"a picture");
//! assert_eq!(payload.expect("it came with one").map()?.len(), 10 << 20);
//! # Ok(()) }
//! ```
//!
//! Inside a value it is `Passed<SealedMemory>`: see [`guide::descriptors`](crate::guide::descriptors#inside-values). Where the sender
//! produces the payload step by step, a pipe inside a value is a byte stream beside the messages.
//!
// Without the feature there is nothing to link to.
#![cfg_attr(feature = "codec", doc = "[`Framed`]: crate::Framed")]
#![cfg_attr(not(feature = "codec"), doc = "[`Framed`]: crate#features")]
