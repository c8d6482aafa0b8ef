//! Containers, sandboxes and io_uring; services under systemd.
//!
//! io_uring is often disabled: by the container's seccomp profile, by a sysctl, by a limit. Nothing breaks then. Sockets for
//! which io_uring was not chosen explicitly run on epoll. This chapter shows how to see what was chosen, and how to change it.
//!
//! # See what was chosen
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::{Unavailable, UnixSeqpacket, UringSupport, probe};
//!
//! // Can this process have a ring? The text names what would change it.
//! println!("{}", probe());
//!
//! // What does this socket run on?
//! let (socket, _peer) = UnixSeqpacket::pair()?;
//! println!("{}", socket.backend());
//!
//! // For a metric or a health check.
//! let word = match probe() {
//!     UringSupport::Available { .. } => "available",
//!     UringSupport::Unavailable(Unavailable::KernelTooOld { .. }) => "kernel",
//!     UringSupport::Unavailable(Unavailable::Missing | Unavailable::Denied) => "seccomp",
//!     UringSupport::Unavailable(Unavailable::DisabledBySysctl { .. }) => "sysctl",
//!     UringSupport::Unavailable(Unavailable::MemoryLock { .. }) => "memlock",
//!     _ => "other",
//! };
//! # let _ = word; Ok(()) }
//! ```
//!
//! From outside of the program, use the command-line tool (feature `cli`, see README.md), in the same container and as the
//! same user:
//!
//! ```sh
//! seqpacket doctor
//! ```
//!
//! It prints the backend, the reason, the limits and what to change. With the feature `tracing` there is a
//! warning when `auto` had chosen io_uring and a ring could not be made although the probe had succeeded.
//! `seqpacket doctor --json` is for programs. Its keys are in `seqpacket doctor --help`, and stay as they are.
//!
//! [`probe()`](crate::probe()) makes the smallest ring that is enough, runs an operation through it and closes it. So a
//! filter that allows one call and refuses the next is noticed, and the call is named. A success is remembered for the
//! life of the process, and so is a refusal that lasts: a kernel that is too old or has no io_uring, and a filter.
//! After any other refusal `auto` uses epoll and asks again later: after a second for the sysctl, after a tenth of a second
//! for limits. An explicit choice asks each time.
//!
//! # Reasons, and what to do
//!
//! | [`Unavailable`] | what it is | what to change |
//! |---|---|---|
//! | `KernelTooOld` | Linux before 6.1 | the kernel; of the *host*, in a container |
//! | `Missing` | `ENOSYS` of `io_uring_setup`: built without `CONFIG_IO_URING`, or a filter that says so. Podman's default profile answers in this way. | the seccomp profile |
//! | `Denied` | `EPERM` or `EACCES` of `io_uring_setup`, and no sysctl that explains it (it is 0, or older kernels have none, or `/proc` cannot be read): a filter or a security module. Docker's and containerd's default profiles answer in this way. | the seccomp profile, or the module's policy |
//! | `Refused` | `io_uring_setup` works, and a further call does not: a filter that allows a part of io_uring. The text names the call. | the seccomp profile |
//! | `DisabledBySysctl` | `kernel.io_uring_disabled`, Linux 6.6: 1 leaves it to processes with `CAP_SYS_ADMIN` and to the group `kernel.io_uring_group`, 2 to none | the sysctl, on the host: it is not per container |
//! | `MemoryLock` | `ENOMEM`: the limit on locked memory is used up | `RLIMIT_MEMLOCK`, below |
//! | `AddressSpace` | `ENOMEM` or `EAGAIN` of `mmap(2)`: no address space for receives, not even 9 MiB | `RLIMIT_AS` (`ulimit -v`), below |
//! | `FileDescriptors` | `EMFILE`, `ENFILE` | `RLIMIT_NOFILE`, below |
//!
//! [`Unavailable`]: crate::Unavailable
//!
//! # seccomp
//!
//! Docker has blocked io_uring in its default profile since version 25.0 (moby/moby#46762), containerd since 2.0
//! (containerd/containerd#9320), and Podman's has never allowed it. Kubernetes uses the runtime's profile
//! where a pod asks for `RuntimeDefault`. By itself it does so only if the kubelet is set to `seccompDefault`. Two
//! calls have to be allowed. `io_uring_register` is not used:
//!
//! ```json
//! {
//!   "names": ["io_uring_setup", "io_uring_enter"],
//!   "action": "SCMP_ACT_ALLOW"
//! }
//! ```
//!
//! Add this to `syscalls` in a copy of the default profile (Docker: `profiles/seccomp/default.json` of
//! moby; Podman: `/usr/share/containers/seccomp.json`), and start the container with it:
//!
//! ```sh
//! docker run --security-opt seccomp=profile.json ...
//! podman run --security-opt seccomp=profile.json ...
//! ```
//!
//! In Kubernetes it is a `seccompProfile` of type `Localhost`. Before you allow io_uring, consider why it is blocked: a ring
//! runs operations that a filter of system calls does not see, and io_uring has had its share of kernel bugs. A service that
//! passes few messages loses little by staying on epoll.
//!
//! systemd's `SystemCallFilter=@system-service` allows io_uring (it is in `@aio`). A filter without
//! `SystemCallErrorNumber=` kills the process instead of refusing. The probe makes a ring to find out whether that works, and
//! ends the process then. Let such filters return an error (`SystemCallErrorNumber=EPERM`), or choose
//! epoll: then no socket probes for io_uring. `probe()` and `seqpacket doctor` do so in any case.
//!
//! # Limits
//!
//! A current_thread runtime has one ring. A multi_thread runtime has up to one for each worker.
//!
//! | limit | a ring takes | where that is not available |
//! |---|---|---|
//! | `RLIMIT_NOFILE` | 1 descriptor | no ring |
//! | `RLIMIT_MEMLOCK`, on some kernels | 32 KiB | 8 KiB, and more system calls under load |
//! | `RLIMIT_AS`, `vm.overcommit_memory=2` | 136 MiB of address space | 34 MiB, then 9 MiB: fewer receives in a batch |
//!
//! A socket that waits takes none of these: it waits for readiness, on both backends. A worker that can have no ring makes system
//! calls. Sockets that are made there, or where the first worker has no ring either, run on epoll under `auto`. An
//! explicit choice is an error that names the limit. `ulimit -n 32` is enough for four workers and a few sockets.
//!
//! **Locked memory.** Linux 6.18 counts rings against `RLIMIT_MEMLOCK`, for all processes of a user together. 6.1 and 6.12 do
//! not. Processes with `CAP_IPC_LOCK` are exempt. Where rings are counted, the kernel gives their memory back late, so a process
//! that makes and ends runtimes quickly needs more for a while. The default of 8 MiB is enough for 256 rings. Raise it with
//! `LimitMEMLOCK=` (systemd), `--ulimit memlock=` (Docker, Podman) or `limits.conf`.
//!
//! **Address space.** Only a page or two of each receive's share become memory, some hundred KiB in all, also under
//! `mlockall(MCL_FUTURE)`. There the 136 MiB count as locked for a moment, so a process without `CAP_IPC_LOCK` needs a limit
//! above 9 MiB, or has no ring.
//!
//! # Choosing from outside
//!
//! `TOKIO_SEQPACKET_BACKEND=epoll` disables io_uring for a program that does not choose by itself. With `uring`, creating the
//! first socket fails if io_uring is not available, instead of a silent fallback. That is useful in a test that has to run on
//! io_uring. See [backends](super::backends).
//!
//! # Services under systemd
//!
//! [`Activation`](crate::Activation) takes over what the manager passes, and
//! [`activated_or_bind`](crate::Options::activated_or_bind) binds where there is no manager. Both ways have the same options:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::{Activation, Options};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("service.sock");
//! let mut passed = Activation::from_env()?;
//! let options = Options::new().mode(0o600).replace_stale(true);
//! let listener = options.activated_or_bind(passed.as_mut(), "control", &path, 128)?;
//! # drop(listener);
//! # Ok(()) }
//! ```
//!
//! | for a listener that was bound | for one that was passed, in its unit |
//! |---|---|
//! | [`mode`](crate::Options::mode), [`owner`](crate::Options::owner) | `SocketMode=`, `SocketUser=`, `SocketGroup=` |
//! | [`unlink_on_drop`](crate::Options::unlink_on_drop) | `RemoveOnStop=` |
//! | [`replace_stale`](crate::Options::replace_stale) | always |
//! | the backlog | `Backlog=` |
//! | all other options | the same options |
//!
//! `systemd-socket-activate` is for a trial without units. Without `--seqpacket` it makes a stream socket, and without `--fdname` the
//! name is `unknown`. Both are errors that say so:
//!
//! ```sh
//! systemd-socket-activate --seqpacket --fdname=control --listen=/tmp/service.sock ./service
//! ```
//!
//! # Restarts without a gap
//!
//! A socket unit keeps the listener open while the service restarts. Connections end with the process, unless the
//! service gives them to systemd's fd store (`FileDescriptorStoreMax=`, `FDSTORE=1` of `sd_notify(3)`). The next process
//! finds them in its [`Activation`](crate::Activation), each under the name that it was stored with.
//!
//! Messages in the kernel's queues go along with the descriptor. Those that the library has already taken from there do
//! not: a message that a dropped receive left (on io_uring), or the rest of a stream's batch (on both backends).
//! [`try_into_fd`](crate::UnixSeqpacket::try_into_fd) returns the descriptor only when none is left. So a connection is
//! handed over in this order:
//!
//! 1. Drop receives, streams and batches. Wait for the sends.
//! 2. Call `try_into_fd`. If it returns the socket, handle what [`try_recv`](crate::UnixSeqpacket::try_recv) returns, and
//!    repeat. At `WouldBlock` an operation is still queued: yield to the runtime first.
//! 3. Store the descriptor. A listener has nothing ahead and needs no such steps. Its file stays.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::io::ErrorKind;
//! use std::os::fd::{AsFd, OwnedFd};
//! use sd_notify::NotifyState;
//! use tokio_seqpacket::UnixSeqpacket;
//!
//! async fn hand_over(mut socket: UnixSeqpacket, mut handle: impl FnMut(&[u8])) -> std::io::Result<OwnedFd> {
//!     let mut buffer = vec![0; 64 << 10];
//!     loop {
//!         match socket.try_into_fd() {
//!             Ok(fd) => return Ok(fd),
//!             Err(left) => socket = left,
//!         }
//!         match socket.try_recv(&mut buffer) {
//!             Ok(len) => handle(&buffer[..len]),
//!             Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::task::yield_now().await,
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//! # let (connection, _peer) = UnixSeqpacket::pair()?;
//! let fd = hand_over(connection, |message| println!("{message:?}")).await?;
//! // Of the crate sd-notify, with its feature `fdstore`.
//! let state = [NotifyState::FdStore, NotifyState::FdName("connection"), NotifyState::Custom("FDPOLL=0")];
//! sd_notify::notify_with_fds(&state, &[fd.as_fd()])?;
//! # Ok(()) }
//! ```
//!
//! Three things to know about the store:
//!
//! - Without `FDPOLL=0` systemd closes a connection whose client has gone, and its last messages with it.
//! - It keeps what it has passed. Until `FDSTOREREMOVE=1`, a connection that the service closes stays open.
//! - It may handle a notification after its sender has ended, and not accept it then. `BARRIER=1` with a pipe waits
//!   (`sd_notify_barrier(3)`).
//!
//! A [`Framed`] holds no received message between two calls: take its socket back with `into_inner` and go on as above.
//! Each message that is left is a value of its codec. Connections from the store do not count in [`Incoming`](crate::Incoming)'s limits, which
//! are for connections that it accepts.
//!
//! The example `restart` does all of this, and runs without systemd as well: it counts numbered messages through three restarts.
//! Options that belong to the socket itself (`set_pass_credentials`, buffer sizes) survive a restart. Those of the library do not:
//! make the socket again with the same [`Options`](crate::Options).
//!
// Without the feature there is nothing to link to.
#![cfg_attr(feature = "codec", doc = "[`Framed`]: crate::Framed")]
#![cfg_attr(not(feature = "codec"), doc = "[`Framed`]: crate#features")]
