//! Tuning: what can be changed, and when it pays.
//!
//! Measure first: with the comparison in the repository (`benches/`, BENCHMARKS.md), on the machine in
//! question, or `seqpacket bench` for a first look. What did not pay is in `docs/design-notes/`.
//!
//! # Send buffers: how large, how many
//!
//! On Unix sockets one limit bounds both: the *sender's* send buffer (`SO_SNDBUF`). It is 212,992 bytes by
//! default (`net.core.wmem_default`). A message may have 32 bytes less, and queued messages are counted
//! with the kernel's bookkeeping. With the default some 278 messages of up to 100 bytes fit, or 11 of 16 KiB,
//! or 4 of 64 KiB. The next send waits. The receive buffer bounds nothing.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
//! a.set_send_buffer_size(16 << 10)?;
//! // Doubled by the kernel, after capping it at net.core.wmem_max.
//! assert_eq!(a.send_buffer_size()?, 32 << 10);
//! assert_eq!(a.max_message_size()?, (32 << 10) - 32);
//!
//! let refused = a.send(&[0; 40_000]).await.unwrap_err();
//! assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
//! // The other direction has a buffer of its own.
//! b.send(&[0; 40_000]).await?;
//! # Ok(()) }
//! ```
//!
//! Larger buffers are for messages beyond 208 KiB, up to 4 MiB, and for receivers that pause and should not stop the sender.
//! Where `net.core.wmem_max` is 212,992, as by default, 416 KiB is the most that can be set. Smaller buffers keep few
//! messages queued, so that what is received is fresh.
//!
//! # Many small messages: batches
//!
//! [`batch`](crate::UnixSeqpacket::batch) sends up to 32 messages with one `sendmmsg(2)`.
//! [`recv_batch`](crate::UnixSeqpacket::recv_batch) receives as many with one `recvmmsg(2)`. Between two
//! threads that was 6 to 8 % faster than single calls (`docs/design-notes/streams-and-batches.md`). The cost there is the traffic between the two cores, not the
//! system calls.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::io::IoSliceMut;
//!
//! # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
//! let mut batch = a.batch();
//! for message in [&b"one"[..], b"two", b"three"] {
//!     batch.push(message);
//! }
//! assert_eq!(batch.send().await?, 3);
//!
//! let mut memory = [[0; 64]; 32];
//! let mut buffers = memory.each_mut().map(|bytes| IoSliceMut::new(bytes));
//! let mut infos = Vec::with_capacity(32);
//! assert_eq!(b.recv_batch(&mut buffers, &mut infos).await?, 3);
//! assert_eq!(&memory[2][..infos[2].bytes_read()], b"three");
//! # Ok(()) }
//! ```
//!
//! # Many small messages one way, between two processes
//!
//! | choice | for a telemetry pipe and the like |
//! |---|---|
//! | calls | `batch()` and `recv_batch` where messages come in groups, else `send` and `recv` |
//! | owned messages in groups | [`OwnedSendBatch`](crate::OwnedSendBatch), and [`Messages::next_batch`](crate::Messages::next_batch): both can be fields, as below |
//! | owned messages | [`Framed`], or `recv_owned` into a `BytesMut` that `split` takes messages off |
//! | backend | either: one socket has nothing to batch in a ring |
//! | submission mode | leave it: [`Submission::Adaptive`](crate::Submission) calls directly here |
//! | send buffer | leave it, unless the receiver pauses: each message that fits is one the sender need not wait for |
//!
//! A sender whose messages come from several tasks, through a queue. What has come meanwhile goes out with one call:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio::sync::mpsc;
//! use tokio_seqpacket::{Messages, MessagesOptions, OwnedSendBatch, UnixSeqpacket};
//!
//! async fn report(socket: UnixSeqpacket, mut samples: mpsc::Receiver<Vec<u8>>) -> std::io::Result<()> {
//!     let mut batch = OwnedSendBatch::new();
//!     while let Some(sample) = samples.recv().await {
//!         batch.push(sample);
//!         while batch.len() < 32 && let Ok(sample) = samples.try_recv() {
//!             batch.push(sample);
//!         }
//!         batch.send(&socket).await?;
//!         batch.clear();
//!     }
//!     println!("sent {} samples", socket.counters().messages_sent);
//!     Ok(())
//! }
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! let (sender, samples) = mpsc::channel(256);
//! let reporting = tokio::spawn(report(a, samples));
//! for n in 0..100_u64 {
//!     sender.send(n.to_be_bytes().into()).await.expect("the reporter runs");
//! }
//! drop(sender);
//!
//! // The collector. The stream owns its socket.
//! let mut messages = Messages::new(b, MessagesOptions::new().buffers(128).size(1024))?;
//! let mut batch = Vec::new();
//! while messages.next_batch(&mut batch).await? > 0 {
//!     batch.drain(..).for_each(|sample| assert_eq!(sample.len(), 8));
//! }
//! assert_eq!(messages.get_ref().counters().messages_received, 100);
//! # reporting.await?
//! # }
//! ```
//!
//! The example `metrics` exports the counters to Prometheus.
//!
//! `seqpacket bench --one-way` measures this on your machine, and says whether io_uring and batches pay there. The first
//! figures here are those of `cargo bench --manifest-path benches/Cargo.toml --bench compare -- --filter processes`:
//!
//! | time of a message, as a ratio to plain calls | 64 bytes, epoll | 64 bytes, io_uring | 1 KiB, epoll | 1 KiB, io_uring |
//! |---|--:|--:|--:|--:|
//! | batches | 0.92, 0.92 | 0.92, 0.90 | 0.96, 0.93 | 0.94, 0.92 |
//! | owned calls with `Bytes` | 1.09, 1.05 | 1.06, 1.10 | 1.05, 1.01 | 1.07, 1.04 |
//! | `Framed` with `BytesCodec` | 1.10, 1.04 | 1.11, 1.11 | 1.09, 1.11 | 1.10, 1.07 |
//!
//! Medians of 15 alternating rounds of 100,000 messages, in two runs. Machine: Intel Xeon, virtual, 2 cores, Linux 6.18, a
//! trivial system call 141 ns. Plain calls carried 0.73 to 0.82 million messages a second. Ratios of processor time, in the
//! busier process, are the same within 0.02. Most of the time is the kernel's: in user space the receiver runs some 150
//! instructions for a plain message. `Framed` and `Bytes` add 60 to 80.
//!
//! `OwnedSendBatch` of `Bytes` with `Messages::next_batch` took as long as plain calls with 64 bytes: 0.96 on epoll, 1.00 on
//! io_uring. Medians of 21 rounds of 300,000 messages on that machine, where batches of borrowed messages took 0.90 and 0.88.
//!
//! # Messages that outlive the call: streams
//!
//! [`messages`](crate::UnixSeqpacket::messages) receives into buffers that the messages lease, with their
//! descriptors. It distinguishes the end of the stream from an empty message. Use it for that: a plain
//! `recv` is faster, see `docs/design-notes/streams-and-batches.md`. [`MessagesOptions`](crate::MessagesOptions) sets how many messages can be
//! held at a time and how long one may be. A consumer that holds them all stops the sender in time.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::MessagesOptions;
//!
//! # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
//! # for n in 0..5_u8 { a.send(&[n]).await?; }
//! # drop(a);
//! let mut messages = b.messages(MessagesOptions::new().buffers(128).size(4 << 10))?;
//! let mut batch = Vec::new();
//! let mut sum = 0;
//! // Takes as many as have come, and at least one. Returns 0 at the end.
//! while messages.next_batch(&mut batch).await? > 0 {
//!     sum += batch.drain(..).map(|message| message.len()).sum::<usize>();
//! }
//! assert_eq!(sum, 5);
//! # Ok(()) }
//! ```
//!
//! # Quick answers between threads: busy polling
//!
//! A parked receive has to be woken, and between two threads that takes longer than everything else. A round trip
//! was 70 µs with both ends parked, and 3.3 to 3.4 µs with both polling busily
//! (`docs/design-notes/busy-polling.md`).
//!
//! [`busy_poll`](crate::busy_poll) makes receives of the current runtime spin for a bounded time before the task is parked.
//! The price is a busy core. It pays where answers come within that time and the runtime's threads have nothing else
//! to do:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//!
//! tokio_seqpacket::busy_poll(Duration::from_micros(50))?;
//! // For receives that begin from now on. Zero switches it off again.
//! tokio_seqpacket::busy_poll(Duration::ZERO)?;
//! # Ok(()) }
//! ```
//!
//! # Many connections: batches of operations
//!
//! On io_uring a thread that has enough to do leaves the operations of its tasks to one `io_uring_enter(2)`.
//! [`metrics`](crate::metrics()) reports whether that happens, and from how many operations on.
//! [`Submission`](crate::Submission) chooses for a socket, and `TOKIO_SEQPACKET_SUBMISSION` for a process.
//!
//! Batches pay for many connections with small messages. Sends over 4 KiB or with ancillary data are system calls of their
//! own in any case, and so are receives behind a large message.
//!
//! # Threads
//!
//! - **current_thread runtimes** pass messages between their own tasks without waking another thread. A
//!   socket stays with the runtime that it was made in.
//! - **multi_thread runtimes** have up to one ring for each worker. A pair whose ends are on two workers pays for the
//!   way between the cores.
//! - **`block_on` on a multi_thread runtime** runs on a thread that is no worker. Each wait there is a hop
//!   to another thread and back, 3 to 60 µs. Spawn the work instead.
//! - **Several tasks on one socket** are woken in order. 64 tasks of a multi_thread runtime that send on one socket took as
//!   long as with tokio-seqpacket, to within 4 % (BENCHMARKS.md).
//! - **A busy task yields.** Calls take from tokio's cooperative budget. So a peer that always has a
//!   message ready cannot keep the other tasks of a thread waiting.
//!
//! # Large payloads: sealed memory
//!
//! A message is copied into the kernel and out again, in pieces of at most the send buffer. Beyond some
//! hundred KiB, and where a payload goes to several peers, pass memory instead:
//! [`SealedMemory`](crate::SealedMemory) is a memfd that no process can change any more.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::SealedMemory;
//!
//! # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
//! let frame = SealedMemory::new(&vec![7; 1 << 20])?;
//! a.send_large(b"frame", &frame).await?;
//! a.send_large(b"the same again", &frame).await?;
//!
//! let mut buffer = [0; 64];
//! for _ in 0..2 {
//!     // No more than 16 MiB, whatever the peer sends.
//!     let (_info, payload) = b.recv_large(&mut buffer, 16 << 20).await?;
//!     let bytes = payload.expect("it came with one").map()?;
//!     assert_eq!(bytes[..4], [7; 4]);
//! }
//! # Ok(()) }
//! ```
//!
//! It pays when memory is sent more than once or filled in place. Sent again, 1 MiB took 0.37 of the time of
//! chunks of 64 KiB. Made anew for each message, it took 2.3 times as long, since each page is allocated and cleared.
//!
// Without the feature there is nothing to link to.
#![cfg_attr(feature = "codec", doc = "[`Framed`]: crate::Framed")]
#![cfg_attr(not(feature = "codec"), doc = "[`Framed`]: crate#features")]
