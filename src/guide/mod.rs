//! The guide: what to choose, what to expect, and how things are done. It consists of text and examples.
//!
//! | chapter | what it answers |
//! |---|---|
//! | [`backends`] | io_uring or epoll: how it is chosen, what differs, what it costs |
//! | [`migration`] | moving from tokio-seqpacket 0.3, 0.8 or 0.9: what is the same, what to change |
//! | [`from_streams`] | coming from `UnixStream`, `AsyncRead` and `LengthDelimitedCodec` |
//! | [`owned_buffers`] | the calls that take their buffers, in ten minutes |
//! | [`descriptors`] | passing open files, sockets and memory |
//! | [`credentials`] | which process is at the other end, and what each answer proves |
//! | [`hostile_peers`] | what a peer can do to a service, and which option limits it |
//! | [`cancel_safety`] | what a dropped future leaves behind: `select!`, timeouts, aborted tasks |
//! | [`containers`] | io_uring under seccomp, sysctls and limits, and how to see what was chosen |
//! | [`tuning`] | send buffers, batches, streams, busy polling, worker threads, sealed memory |
//!
//! The examples run as tests. Most of them use [`UnixSeqpacket::pair`](crate::UnixSeqpacket::pair) in
//! place of a listener and a client, which needs no path. The two ends of a pair behave as any others do.
//!
//! Copied into a program, those with `Framed` and values take the features `codec` or `postcard`, and these crates beside this
//! one:
//!
//! ```toml
//! [dependencies]
//! tokio-seqpacket = { package = "tokio-seqpacket-uring", version = "0.1", path = "../tokio-seqpacket-uring", features = ["postcard"] }
//! tokio = { version = "1.54", features = ["full"] }
//! futures-util = { version = "0.3", features = ["sink"] }  # StreamExt::next, SinkExt::send
//! serde = { version = "1", features = ["derive"] }
//! tokio-util = { version = "0.7", features = ["codec"] }   # BytesCodec, LengthDelimitedCodec
//! bytes = "1"
//! sd-notify = { version = "0.5", features = ["fdstore"] }  # restarts without a gap
//! ```

pub mod backends;
pub mod cancel_safety;
pub mod containers;
pub mod credentials;
pub mod descriptors;
pub mod from_streams;
pub mod hostile_peers;
pub mod migration;
pub mod owned_buffers;
pub mod tuning;
