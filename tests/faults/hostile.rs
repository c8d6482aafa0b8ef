//! G8 and G9 against hostile peers: what they cost, and whether a neighbor on the same runtime goes on.
//!
//! Nothing here depends on time. The figures are printed with `--nocapture`.

use std::io::{ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, UCred,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{SealedMemory, UnixSeqpacket};

use crate::harness::descriptors::count;
use crate::harness::messages::echoes;
use crate::harness::runner::is_long;
use crate::harness::syscalls::{is_at_end, recv, send, socketpair};
use crate::harness::waiting::{soon, until_in_runtime};
use crate::harness::{Cell, Test, alone};
use crate::sockopt::switch_on;

pub fn tests() -> Vec<Test> {
    alone(blocking![
        a_flood_of_empty_messages_leaves_a_neighbor_its_turns,
        a_flood_of_253_descriptors_each_leaves_none_behind,
        a_storm_of_connections_that_close_leaves_none_behind,
        five_thousand_idle_peers_cost_little_and_disturb_no_other,
        a_peer_that_never_reads_costs_what_waits_and_no_more,
        control_data_of_any_kind_is_received_and_leaves_nothing,
        a_payload_comes_beside_all_that_options_add,
    ])
}

/// An attack lasts for so many round trips of the neighbor.
fn rounds() -> u64 {
    if is_long() { 20_000 } else { 500 }
}

/// Resident memory in KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Two sockets whose messages go back and forth, in tasks of their own.
struct Neighbour {
    trips: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: [JoinHandle<()>; 2],
}

impl Neighbour {
    fn new(cell: Cell) -> Self {
        let (a, b) = cell.pair();
        let (trips, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let asking = tokio::spawn({
            let (trips, stop) = (trips.clone(), stop.clone());
            async move {
                let mut answer = [0; 8];
                while !stop.load(Ordering::Relaxed) {
                    let number = trips.load(Ordering::Relaxed).to_ne_bytes();
                    a.send(&number).await.expect("sent");
                    assert_eq!(soon(a.recv(&mut answer)).await.expect("an answer"), 8);
                    assert_eq!(answer, number);
                    trips.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let answering = tokio::spawn(async move {
            let mut request = [0; 8];
            while let Ok(8) = b.recv(&mut request).await {
                b.send(&request).await.expect("sent");
            }
        });
        Self { trips, stop, tasks: [asking, answering] }
    }

    /// How many round trips in a second, over `count` of them. `look` is called again and again.
    async fn goes_on(&self, count: u64, mut look: impl FnMut()) -> u64 {
        let begin = Instant::now();
        let from = self.trips.load(Ordering::Relaxed);
        let mut before = from;
        while before < from + count {
            let (mut stalled, last) = (0, before);
            while before == last {
                tokio::time::sleep(Duration::from_millis(1)).await;
                before = self.trips.load(Ordering::Relaxed);
                look();
                stalled += 1;
                assert!(stalled < 5000, "the neighbor is not served any more");
            }
        }
        ((before - from) as f64 / begin.elapsed().as_secs_f64()) as u64
    }

    async fn ends(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            soon(task).await.expect("no panic");
        }
    }
}

/// Attackers: threads that are told when to stop.
struct Attack {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Attack {
    /// `strike` says whether it hit; else it is called again when `fds` may be written to.
    fn new(fds: Vec<OwnedFd>, mut strike: impl FnMut(&OwnedFd) -> bool + Send + 'static) -> Self {
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = std::thread::spawn({
            let (stop, count) = (stop.clone(), count.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let hits = fds.iter().filter(|fd| strike(fd)).count();
                    count.fetch_add(hits as u64, Ordering::Relaxed);
                    if hits == 0 {
                        let mut polled: Vec<_> =
                            fds.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)).collect();
                        let moment = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                        let _ = rustix::event::poll(&mut polled, Some(&moment));
                    }
                }
            }
        });
        Self { stop, count, thread }
    }

    fn ends(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
        self.count.load(Ordering::Relaxed)
    }
}

/// What was seen during an attack.
struct Cost {
    memory_before: usize,
    fds_before: usize,
    most_memory: usize,
    most_fds: usize,
}

impl Cost {
    fn new() -> Self {
        let (memory_before, fds_before) = (memory(), count());
        let (most_memory, most_fds) = (memory_before, fds_before);
        Self { memory_before, fds_before, most_memory, most_fds }
    }

    /// How many round trips a second the neighbor makes beside this.
    async fn beside(&mut self, neighbor: &Neighbour) -> u64 {
        // To look takes time, on the runtime.
        let figure = neighbor.goes_on(rounds(), || {}).await;
        neighbor.goes_on(rounds() / 5, || self.look()).await;
        figure
    }

    fn look(&mut self) {
        self.most_memory = self.most_memory.max(memory());
        self.most_fds = self.most_fds.max(count());
    }

    /// KiB and descriptors more than before.
    fn more(&self) -> (usize, usize) {
        (self.most_memory.saturating_sub(self.memory_before), self.most_fds - self.fds_before)
    }
}

/// How the victims take what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    /// The bytes alone.
    Bytes,
    /// Everything.
    All,
    /// Nothing at all.
    Nothing,
}

/// Take messages until the peer is gone.
async fn take(socket: UnixSeqpacket, how: Taking, stop: Arc<AtomicBool>, taken: Arc<AtomicU64>) {
    let mut ancillary = AncillaryBuffer::new();
    let mut buffer = vec![0; 64];
    // An empty message looks like the end.
    while !stop.load(Ordering::Relaxed) {
        match how {
            Taking::Bytes => drop(socket.recv(&mut buffer).await.expect("a message")),
            Taking::All => {
                let received;
                (received, buffer, ancillary) =
                    socket.recv_owned_with_ancillary(buffer, ancillary).await;
                let received = received.expect("a message");
                assert!(!received.ancillary_truncated(), "there is room for all of it");
                ancillary.clear();
            }
            Taking::Nothing => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        taken.fetch_add(1, Ordering::Relaxed);
    }
}

/// Messages arrive at four sockets as fast as they can be sent. Says what that cost, in KiB and
/// descriptors.
async fn flood(
    cell: Cell,
    name: &str,
    taking: Taking,
    strike: impl FnMut(&OwnedFd) -> bool + Send + 'static,
) -> (usize, usize) {
    let neighbor = Neighbour::new(cell);
    let quiet = neighbor.goes_on(4 * rounds(), || {}).await;
    let mut cost = Cost::new();
    let (stop, taken) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let (mut tasks, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let (socket, peer) = cell.half_fd();
        tasks.push(tokio::spawn(take(socket, taking, stop.clone(), taken.clone())));
        peers.push(peer);
    }
    let attack = Attack::new(peers, strike);
    until_in_runtime("the flood comes", || attack.count.load(Ordering::Relaxed) > 0).await;
    let flooded = cost.beside(&neighbor).await;
    stop.store(true, Ordering::Relaxed);
    let sent = attack.ends();
    for task in tasks {
        soon(task).await.expect("no panic");
    }
    neighbor.ends().await;
    let (memory, fds) = cost.more();
    eprintln!(
        "*** {}: {name}, {taking:?}: neighbor {quiet}/s alone, {flooded}/s beside; {sent} sent; \
         {memory} KiB and {fds} descriptors more",
        cell.name()
    );
    (memory, fds)
}

fn is_hit<T>(result: Result<T, rustix::io::Errno>) -> bool {
    match result {
        Ok(_) => true,
        // Full, or the victim is gone.
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
            false
        }
        Err(error) => panic!("{error}"),
    }
}

const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

fn a_flood_of_empty_messages_leaves_a_neighbor_its_turns(cell: Cell) {
    cell.leaves_nothing(async move {
        for taking in [Taking::Bytes, Taking::All, Taking::Nothing] {
            let strike = |fd: &OwnedFd| is_hit(rustix::net::send(fd, &[], FLAGS));
            let (memory, fds) = flood(cell, "empty messages", taking, strike).await;
            assert!(memory < 16 << 10, "{memory} KiB");
            // Two for each connection, one more where a receive waits for readiness.
            assert!(fds <= 3 * 4, "{fds} descriptors");
        }
    });
}

fn send_rights(fd: &OwnedFd, rights: &[BorrowedFd<'_>]) -> bool {
    let rights = SendAncillaryMessage::ScmRights(rights);
    let mut room = [MaybeUninit::uninit(); 2048];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(rights));
    is_hit(rustix::net::sendmsg(fd, &[IoSlice::new(b"x")], &mut control, FLAGS))
}

fn a_flood_of_253_descriptors_each_leaves_none_behind(cell: Cell) {
    cell.leaves_nothing(async move {
        let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX / 2, |it| it as usize);
        for taking in [Taking::Bytes, Taking::All, Taking::Nothing] {
            let strike = |fd: &OwnedFd| {
                // To oneself: what is in the queue keeps the sockets alive, if it is forgotten.
                send_rights(fd, &[fd.as_fd(); 253])
            };
            let (memory, fds) = flood(cell, "253 descriptors each", taking, strike).await;
            assert!(memory < 16 << 10, "{memory} KiB");
            // A receive of bytes alone is given no descriptors. Else a message for each socket is in the hands of its task,
            // one more is being received, and sockets are closed aside: where that falls behind, a quarter of the
            // descriptors that the process may have waits (`src/close.rs`).
            let most = if taking == Taking::All { 4 * 2 * 253 + limit / 4 } else { 0 };
            assert!(fds <= most + 3 * 4, "{fds} descriptors");
        }
    });
}

fn connect(path: &Path) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).expect("a path")).ok()?;
    Some(socket)
}

fn a_storm_of_connections_that_close_leaves_none_behind(cell: Cell) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let served = cell.leaves_nothing(async move {
        let neighbor = Neighbour::new(cell);
        let quiet = neighbor.goes_on(4 * rounds(), || {}).await;
        let listener = cell.options().bind(&path, 64).expect("a listener");
        let mut cost = Cost::new();
        let (served, alive) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let most_alive = Arc::<AtomicUsize>::default();
        let accepting = tokio::spawn({
            let (served, alive, most_alive) = (served.clone(), alive.clone(), most_alive.clone());
            async move {
                loop {
                    let socket = listener.accept().await.expect("a connection");
                    let (served, alive) = (served.clone(), alive.clone());
                    let now = alive.fetch_add(1, Ordering::Relaxed) + 1;
                    most_alive.fetch_max(now, Ordering::Relaxed);
                    tokio::spawn(async move {
                        let mut message = [0; 16];
                        // One hello, perhaps; a reset, since the answer is not read; the end.
                        while let Ok(1..) | Err(_) = socket.recv(&mut message).await {
                            let _ = socket.send(b"answer").await;
                        }
                        served.fetch_add(1, Ordering::Relaxed);
                        alive.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        });
        let mut number = 0_u64;
        let attack = Attack::new(vec![socketpair().0], move |_| {
            number += 1;
            let Some(socket) = connect(&path) else {
                std::thread::yield_now();
                return true;
            };
            if number.is_multiple_of(2) {
                let _ = send(&socket, b"hello");
            }
            true
        });
        until_in_runtime("the storm comes", || served.load(Ordering::Relaxed) > 0).await;
        let stormy = cost.beside(&neighbor).await;
        let tried = attack.ends();
        let all_gone = || alive.load(Ordering::Relaxed) == 0;
        until_in_runtime("all are served", all_gone).await;
        accepting.abort();
        assert!(accepting.await.unwrap_err().is_cancelled());
        neighbor.ends().await;
        let (memory, fds) = cost.more();
        let served = served.load(Ordering::Relaxed);
        let most_alive = most_alive.load(Ordering::Relaxed);
        eprintln!(
            "*** {}: connections: neighbor {quiet}/s alone, {stormy}/s beside; {tried} tried, \
             {served} served, {most_alive} at once; {memory} KiB and {fds} descriptors more",
            cell.name()
        );
        assert!(memory < 16 << 10, "{memory} KiB");
        // Accepted and not yet served, which the scheduler decides; the backlog costs the listener none.
        assert!(fds < most_alive + 100, "{fds} descriptors for {most_alive} connections");
        served
    });
    assert!(served > 0);
}

fn five_thousand_idle_peers_cost_little_and_disturb_no_other(cell: Cell) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("the soft limit");
    // Two for each; a third on epoll, or where a receive waits for readiness.
    let most = limit.maximum.unwrap_or(u64::MAX).saturating_sub(200) / 3;
    let count = 5000.min(most as usize);
    if count < 5000 {
        eprintln!("*** RLIMIT_NOFILE allows {count} idle peers only");
    }
    cell.leaves_nothing(async move {
        let neighbor = Neighbour::new(cell);
        let quiet = neighbor.goes_on(4 * rounds(), || {}).await;
        let mut cost = Cost::new();
        let (mut tasks, mut peers) = (Vec::new(), Vec::new());
        let waiting = Arc::<AtomicUsize>::default();
        for number in 0..count {
            let (socket, peer) = cell.half_fd();
            let waiting = waiting.clone();
            tasks.push(tokio::spawn(async move {
                waiting.fetch_add(1, Ordering::Relaxed);
                let mut message = [0; 16];
                while let Ok(len @ 1..) = socket.recv(&mut message).await {
                    assert_eq!(message[..len], number.to_ne_bytes());
                    socket.send(&message[..len]).await.expect("sent");
                }
            }));
            peers.push(peer);
        }
        until_in_runtime("they wait", || waiting.load(Ordering::Relaxed) == count).await;
        let beside = cost.beside(&neighbor).await;
        // They are served, too.
        for (number, peer) in peers.iter().enumerate() {
            send(peer, &number.to_ne_bytes()).expect("room");
        }
        for (number, peer) in peers.iter().enumerate() {
            let mut answer = None;
            until_in_runtime("an answer", || {
                answer = answer.take().or_else(|| recv(peer).ok());
                answer.is_some()
            })
            .await;
            assert_eq!(answer.expect("an answer"), number.to_ne_bytes());
        }
        cost.look();
        let (memory, fds) = cost.more();
        eprintln!(
            "*** {}: {count} idle peers: neighbor {quiet}/s alone, {beside}/s beside; {} bytes and \
             {:.2} descriptors for each",
            cell.name(),
            memory * 1024 / count,
            fds as f64 / count as f64
        );
        assert!(memory * 1024 / count < 16 << 10, "{memory} KiB for {count}");
        assert!(fds <= 3 * count + 10, "{fds} descriptors for {count}");
        drop(peers);
        for task in tasks {
            soon(task).await.expect("no panic");
        }
        neighbor.goes_on(rounds(), || {}).await;
        neighbor.ends().await;
    });
}

fn a_peer_that_never_reads_costs_what_waits_and_no_more(cell: Cell) {
    cell.leaves_nothing(async move {
        let neighbor = Neighbour::new(cell);
        let quiet = neighbor.goes_on(4 * rounds(), || {}).await;
        let mut cost = Cost::new();
        let sent = Arc::<AtomicU64>::default();
        let (mut tasks, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..16 {
            let (socket, peer) = cell.half_fd();
            let (socket, sent) = (Arc::new(socket), sent.clone());
            // Several tasks for each, one message at a time.
            for _ in 0..4 {
                let (socket, sent) = (socket.clone(), sent.clone());
                tasks.push(tokio::spawn(async move {
                    loop {
                        match socket.send_owned(vec![1; 4096]).await.0 {
                            Ok(_) => sent.fetch_add(1, Ordering::Relaxed),
                            Err(error) => return error.kind(),
                        };
                    }
                }));
            }
            peers.push(peer);
        }
        let mut before = u64::MAX;
        until_in_runtime("all queues are full", || {
            std::mem::replace(&mut before, sent.load(Ordering::Relaxed)) == before && before > 0
        })
        .await;
        let beside = cost.beside(&neighbor).await;
        let (memory, fds) = cost.more();
        eprintln!(
            "*** {}: 16 peers that never read: neighbor {quiet}/s alone, {beside}/s beside; {} \
             messages in their queues; {memory} KiB and {fds} descriptors more",
            cell.name(),
            sent.load(Ordering::Relaxed)
        );
        assert!(memory < 8 << 10, "{memory} KiB");
        assert!(fds <= 3 * 16, "{fds} descriptors");
        drop(peers);
        for task in tasks {
            let kind = soon(task).await.expect("no panic");
            assert!([ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&kind), "{kind}");
        }
        neighbor.ends().await;
    });
}

/// `SO_PASSPIDFD`, of Linux 6.5, which libc does not name everywhere.
const SO_PASSPIDFD: i32 = 76;

fn a_payload_comes_beside_all_that_options_add(cell: Cell) {
    cell.leaves_nothing(async move {
        let (socket, peer) = cell.half_fd();
        for option in [libc::SO_PASSCRED, libc::SO_PASSSEC, libc::SO_TIMESTAMP, SO_PASSPIDFD] {
            if let Err(error) = switch_on(&socket, option) {
                eprintln!("*** option {option} cannot be had: {error}");
            }
        }
        let sender = cell.options().socket_from_fd(peer).unwrap();
        let memory = SealedMemory::new(&[7; 5000]).unwrap();
        soon(sender.send_large(b"name", &memory)).await.unwrap();
        let (info, payload) = soon(socket.recv_large(&mut [0; 8], 1 << 20)).await.unwrap();
        assert_eq!((info.bytes_read(), payload.unwrap().len()), (4, 5000));
        // There is capacity for all of that beside a limit on descriptors, too.
        for most in 0..4 {
            socket.set_max_fds(most);
            for sent in 0..8 {
                let fds = std::iter::repeat_with(|| memory.as_fd().try_clone_to_owned().unwrap());
                let ancillary = AncillaryBuffer::from_iter(fds.take(sent));
                soon(sender.send_owned_with_ancillary("name", ancillary)).await.0.unwrap();
                let (info, _, ancillary) =
                    soon(socket.recv_owned_with_ancillary(vec![0; 4], AncillaryBuffer::new()))
                        .await;
                assert_eq!(info.unwrap().ancillary_truncated(), sent > most, "{sent} of {most}");
                assert_eq!(ancillary.fds().len(), sent.min(most));
                assert!(ancillary.credentials().is_some());
            }
        }
    });
}

fn control_data_of_any_kind_is_received_and_leaves_nothing(cell: Cell) {
    cell.leaves_nothing(async move {
        let neighbor = Neighbour::new(cell);
        let own = UCred {
            pid: rustix::process::getpid(),
            uid: rustix::process::getuid(),
            gid: rustix::process::getgid(),
        };
        let options: [&[i32]; 6] = [
            &[],
            &[libc::SO_PASSCRED],
            &[libc::SO_PASSSEC],
            &[libc::SO_TIMESTAMP],
            &[libc::SO_TIMESTAMPNS],
            &[libc::SO_PASSCRED, libc::SO_PASSSEC, libc::SO_TIMESTAMP, SO_PASSPIDFD],
        ];
        for options in options {
            let (socket, peer) = cell.half_fd();
            for option in options {
                if let Err(error) = switch_on(&socket, *option) {
                    eprintln!("*** option {option} cannot be had: {error}");
                }
            }
            let before = count();
            let mut buffer = vec![0; 16];
            for number in 0..64_u8 {
                for waits in [false, true] {
                    let send_all = || {
                        let mut room = [MaybeUninit::uninit(); 512];
                        let mut control = SendAncillaryBuffer::new(&mut room);
                        let rights = [peer.as_fd()];
                        if number % 2 == 0 {
                            assert!(control.push(SendAncillaryMessage::ScmCredentials(own)));
                        }
                        if number % 3 == 0 {
                            assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
                        }
                        let bytes = [number];
                        let message = [IoSlice::new(&bytes)];
                        rustix::net::sendmsg(&peer, &message, &mut control, FLAGS).expect("room");
                    };
                    if !waits {
                        send_all();
                    }
                    let mut all = None;
                    let mut call = Box::pin(async {
                        if number % 4 < 2 {
                            assert_eq!(socket.recv(&mut buffer).await.expect("a message"), 1);
                            assert_eq!(buffer[0], number);
                        } else {
                            let (received, bytes, ancillary) = socket
                                .recv_owned_with_ancillary(vec![0; 16], AncillaryBuffer::new())
                                .await;
                            let received = received.expect("a message");
                            assert_eq!((received.bytes_read(), bytes[0]), (1, number));
                            all = Some((received.ancillary_truncated(), ancillary));
                        }
                    });
                    if waits {
                        tokio::select! {
                            biased;
                            () = &mut call => panic!("nothing has been sent"),
                            () = neighbor_turns(&neighbor) => {}
                        }
                        send_all();
                    }
                    soon(call.as_mut()).await;
                    drop(call);
                    if let Some((truncated, mut ancillary)) = all {
                        assert!(!truncated, "there is room for all of it");
                        assert_eq!(ancillary.fds().len(), usize::from(number % 3 == 0));
                        let asked = options.contains(&libc::SO_PASSCRED);
                        // Credentials come to those who ask for them.
                        assert!(!asked || ancillary.credentials().is_some());
                        drop(ancillary.take_pidfd());
                    }
                }
            }
            // A duplicate each for this socket and the neighbors may wait for readiness, and another
            // worker may have its ring by now. What is forgotten would be more.
            let least = || count() <= before + 3 + 4;
            until_in_runtime("all that came is closed", least).await;
            drop(socket);
            until_in_runtime("end of stream", || is_at_end(&peer)).await;
        }
        neighbor.ends().await;
        let (a, b) = cell.pair();
        echoes(&a, &b, 10).await;
    });
}

/// Some turns of all other tasks.
async fn neighbor_turns(neighbor: &Neighbour) {
    neighbor.goes_on(2, || {}).await;
}
