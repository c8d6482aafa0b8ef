//! G9: sockets that are busy for a while, then wait, and the other way round. How a call waits changes on the way, and
//! registrations come and go. No waiter misses its event.

use std::os::fd::AsRawFd;
use std::task::Poll;

use tokio::io::unix::AsyncFd;
use tokio_seqpacket::{Backend, UnixSeqpacket};
use tokio_test::task;

use crate::harness::messages::{FILLER, fill, nothing_is_left, recv};
use crate::harness::peer::Peer;
use crate::harness::waiting::{arm, breathe, soon, until_in_runtime, until_woken};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_busy_socket_costs_no_events,
        a_send_that_waits_learns_of_capacity_while_receives_are_busy,
        a_receive_that_waits_learns_of_a_message_while_sends_are_busy,
        a_receive_that_waits_is_woken_also_after_a_send_came_to_wait,
        a_poll_that_waits_is_woken_after_calls_that_did_not_have_to_wait,
        a_socket_that_the_caller_has_registered_as_well_waits_all_the_same,
        busy_and_waiting_in_turn,
        two_tasks_alternate_between_busy_and_waiting,
    ]
}

/// More calls in a row without waiting than either backend keeps a registration for.
const BUSY: usize = 200;

async fn receives(socket: &UnixSeqpacket, peer: &Peer, count: usize) {
    for _ in 0..count {
        peer.send(b"quick");
        assert_eq!(recv(socket).await, b"quick");
    }
}

async fn sends(socket: &UnixSeqpacket, peer: &Peer, count: usize) {
    for _ in 0..count {
        soon(socket.send(b"quick")).await.unwrap();
        assert_eq!(peer.recv(), b"quick");
    }
}

/// What filled the queue, and not what has waited for capacity since.
fn takes(peer: &Peer, filled: usize) {
    for _ in 0..filled {
        assert_eq!(peer.recv(), FILLER);
    }
}

/// Whether an epoll instance of this process knows the socket: the descriptor and the inode, as another test can have closed
/// a registered socket with that descriptor whose file is still open elsewhere.
fn is_registered(socket: &UnixSeqpacket) -> bool {
    let fd = format!("tfd: {:8} ", socket.as_raw_fd());
    let inode = format!(" ino:{:x} ", rustix::fs::fstat(socket).unwrap().st_ino);
    let known = |entry: std::io::Result<std::fs::DirEntry>| {
        // Others may be closed meanwhile.
        let info = entry.and_then(|entry| std::fs::read_to_string(entry.path())).ok()?;
        info.lines().any(|line| line.starts_with(&fd) && line.contains(&inode)).then_some(())
    };
    std::fs::read_dir("/proc/self/fdinfo").unwrap().find_map(known).is_some()
}

async fn a_busy_socket_costs_no_events(cell: Cell) {
    let (a, peer) = cell.half();
    for _ in 0..3 {
        let mut receive = task::spawn(a.recv_owned(vec![0; 64]));
        arm(&mut receive).await;
        if cell.backend == Backend::Epoll {
            assert!(is_registered(&a), "how else is the receive woken?");
        }
        peer.send(b"awaited");
        assert_eq!(soon(receive).await.0.unwrap().bytes_read(), 7);
        receives(&a, &peer, BUSY).await;
        // A driver on another thread may drop it after it has answered.
        until_in_runtime("no registration after receives", || !is_registered(&a)).await;

        let filled = fill(&a);
        let mut send = task::spawn(a.send(b"awaited"));
        arm(&mut send).await;
        if cell.backend == Backend::Epoll {
            assert!(is_registered(&a), "how else is the send woken?");
        }
        takes(&peer, filled);
        soon(send).await.unwrap();
        assert_eq!(peer.recv(), b"awaited");
        sends(&a, &peer, BUSY).await;
        until_in_runtime("no registration after sends", || !is_registered(&a)).await;
    }
}

async fn a_send_that_waits_learns_of_capacity_while_receives_are_busy(cell: Cell) {
    let (a, peer) = cell.half();
    let filled = fill(&a);
    let mut send = task::spawn(a.send(b"awaited"));
    arm(&mut send).await;
    receives(&a, &peer, BUSY).await;
    takes(&peer, filled);
    // A poll before it is woken would hide a missed wake-up.
    until_woken(&mut send).await;
    soon(send).await.unwrap();
    assert_eq!(peer.recv(), b"awaited");
}

async fn a_receive_that_waits_learns_of_a_message_while_sends_are_busy(cell: Cell) {
    let (a, peer) = cell.half();
    let mut receive = task::spawn(a.recv_owned(vec![0; 64]));
    arm(&mut receive).await;
    sends(&a, &peer, BUSY).await;
    peer.send(b"awaited");
    until_woken(&mut receive).await;
    assert_eq!(soon(receive).await.0.unwrap().bytes_read(), 7);
    nothing_is_left(&a, &peer).await;
}

async fn a_receive_that_waits_is_woken_also_after_a_send_came_to_wait(cell: Cell) {
    let (a, peer) = cell.half();
    for later in [false, true] {
        let mut receive = task::spawn(a.recv_owned(vec![0; 64]));
        arm(&mut receive).await;
        let filled = fill(&a);
        let mut send = task::spawn(a.send(b"awaited"));
        arm(&mut send).await;
        // Where one call waits can change because of the other. It may be woken for that.
        if later {
            breathe().await;
        }
        if receive.is_woken() {
            arm(&mut receive).await;
        }
        peer.send(b"awaited");
        until_woken(&mut receive).await;
        assert_eq!(soon(receive).await.0.unwrap().bytes_read(), 7);
        takes(&peer, filled);
        until_woken(&mut send).await;
        soon(send).await.unwrap();
        assert_eq!(peer.recv(), b"awaited");
        // It is given up, and begins anew.
        receives(&a, &peer, BUSY).await;
    }
}

async fn a_poll_that_waits_is_woken_after_calls_that_did_not_have_to_wait(cell: Cell) {
    let (a, peer) = cell.half();
    let mut buffer = [0; 64];
    // A `poll_*` call has no place in the wait queue: only its waker is left.
    let mut poll = task::spawn(());
    assert!(poll.enter(|cx, _| a.poll_recv(cx, &mut buffer)).is_pending());
    sends(&a, &peer, BUSY).await;
    breathe().await;
    assert!(!poll.is_woken(), "there is nothing to receive");
    peer.send(b"awaited");
    soon(async {
        while !poll.is_woken() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let polled = poll.enter(|cx, _| a.poll_recv(cx, &mut buffer));
    assert!(matches!(polled, Poll::Ready(Ok(7))), "{polled:?}");
}

async fn a_socket_that_the_caller_has_registered_as_well_waits_all_the_same(cell: Cell) {
    struct Number(std::os::fd::RawFd);
    impl AsRawFd for Number {
        fn as_raw_fd(&self) -> std::os::fd::RawFd {
            self.0
        }
    }
    let (a, peer) = cell.half();
    sends(&a, &peer, BUSY).await;
    #[expect(deprecated, reason = "what replaces it wants a promise; users still have this")]
    let registered = AsyncFd::new(Number(a.as_raw_fd())).unwrap();
    // One by one, so that a ring comes to prefer readiness.
    for _ in 0..20 {
        let mut receive = task::spawn(a.recv_owned(vec![0; 64]));
        arm(&mut receive).await;
        peer.send(b"awaited");
        until_woken(&mut receive).await;
        assert_eq!(soon(receive).await.0.unwrap().bytes_read(), 7);
    }
    let filled = fill(&a);
    let mut send = task::spawn(a.send(b"awaited"));
    arm(&mut send).await;
    takes(&peer, filled);
    until_woken(&mut send).await;
    soon(send).await.unwrap();
    drop(registered);
}

async fn busy_and_waiting_in_turn(cell: Cell) {
    let (a, peer) = cell.half();
    for busy in [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, BUSY] {
        receives(&a, &peer, busy).await;
        let mut receive = task::spawn(a.recv_owned(vec![0; 64]));
        arm(&mut receive).await;
        sends(&a, &peer, busy).await;
        peer.send(b"awaited");
        assert_eq!(soon(receive).await.0.unwrap().bytes_read(), 7);
    }
    nothing_is_left(&a, &peer).await;
}

/// With the runtime's own scheduling, on several threads where it has them: registrations are given up
/// while the other direction comes to wait.
async fn two_tasks_alternate_between_busy_and_waiting(cell: Cell) {
    const MESSAGES: u32 = 3000;
    let (a, b) = cell.pair();
    let (a, b) = (std::sync::Arc::new(a), std::sync::Arc::new(b));
    let mut tasks = Vec::new();
    for socket in [&a, &b] {
        let sender = socket.clone();
        tasks.push(tokio::spawn(async move {
            for number in 0..MESSAGES {
                sender.send(&number.to_ne_bytes()).await.unwrap();
                // Now and then the other side runs dry.
                if number % 150 == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
        }));
        let receiver = socket.clone();
        tasks.push(tokio::spawn(async move {
            let mut buffer = [0; 4];
            for number in 0..MESSAGES {
                assert_eq!(receiver.recv(&mut buffer).await.unwrap(), 4);
                assert_eq!(u32::from_ne_bytes(buffer), number);
                // And now and then so slow that the queue fills.
                if number % 700 == 699 {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            }
        }));
    }
    for task in tasks {
        soon(task).await.unwrap();
    }
}
