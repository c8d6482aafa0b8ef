//! G4, and how connections are made: addresses, backlogs, accepting.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_seqpacket::{UCred, UnixSeqpacket, UnixSeqpacketListener};
use tokio_test::task;

use crate::harness::descriptors::{is_close_on_exec, is_nonblocking};
use crate::harness::messages::recv;
use crate::harness::peer::Peer;
use crate::harness::syscalls::errno;
use crate::harness::waiting::{
    all, arm, arm_all, breathe, once, soon, starts_waiting, until_woken,
};
use crate::harness::{Cell, Flavor, Test, only};

pub fn tests() -> Vec<Test> {
    [
        tasks![
            a_connection_carries_messages_both_ways,
            connect_to_a_full_backlog_waits_until_it_is_accepted,
            connect_to_a_full_backlog_fails_when_the_listener_goes,
            connect_dropped_while_it_waits_leaves_no_connection,
            many_connects_to_a_short_backlog_all_arrive,
            connect_says_what_is_wrong,
            bind_to_a_path_in_use_is_refused,
            a_socket_that_is_not_connected_is_refused,
            a_fresh_listener_waits_and_never_spins,
            accepted_connections_come_in_the_order_of_connecting,
            accepts_are_served_first_in_first_out,
            an_accept_dropped_before_the_connection_loses_nothing,
            an_accept_dropped_after_the_connection_loses_nothing,
            an_accept_dropped_at_the_moment_of_completion_loses_nothing,
            accepts_dropped_in_races_with_connections_lose_nothing,
            an_accept_dropped_wakes_a_task_that_polls,
            poll_accept_and_a_waiting_accept_both_get_a_connection,
            dropping_a_listener_closes_connections_that_were_not_accepted,
            dropping_a_listener_closes_a_connection_accepted_for_a_dropped_accept,
            an_abstract_name_is_free_again_when_the_listener_is_dropped,
            a_forgotten_accept_leaves_other_calls_at_work,
            a_path_of_108_bytes_works,
            a_path_with_a_nul_byte_inside_is_refused,
            an_abstract_name_works_to_the_last_byte,
            credentials_of_the_peer_are_known,
            accepted_sockets_are_close_on_exec_and_non_blocking,
            a_listener_can_be_given_away_and_taken_over,
        ],
        blocking![connect_waits_in_a_runtime_without_time],
        // Those whose clock can be paused.
        only(
            &[Flavor::CurrentThread],
            blocking![
                under_a_paused_clock_connect_waits_in_that_clocks_time,
                under_a_paused_clock_without_timers_connect_waits,
            ],
        ),
    ]
    .concat()
}

/// A path for a socket, in a directory of its own.
struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { path: directory.path().join("socket"), _directory: directory }
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

fn listen(cell: Cell) -> (Place, UnixSeqpacketListener) {
    let place = Place::new();
    let listener = cell.bind(&place);
    (place, listener)
}

async fn a_connection_carries_messages_both_ways(cell: Cell) {
    let (place, listener) = listen(cell);
    let (client, server) =
        soon(async { tokio::join!(cell.connect(&place), listener.accept()) }).await;
    let server = server.unwrap();
    assert_eq!((client.backend(), server.backend()), (cell.backend, cell.backend));
    soon(client.send(b"question")).await.unwrap();
    assert_eq!(recv(&server).await, b"question");
    soon(server.send(b"answer")).await.unwrap();
    assert_eq!(recv(&client).await, b"answer");
    assert!(listener.take_error().unwrap().is_none() && client.take_error().unwrap().is_none());
    drop(server);
    assert_eq!(recv(&client).await, b"");
}

async fn connect_to_a_full_backlog_waits_until_it_is_accepted(cell: Cell) {
    let place = Place::new();
    let listener = cell.options().bind(&place, 0).unwrap();
    let first = cell.connect(&place).await;
    let options = cell.options();
    let mut second = task::spawn(options.connect(&place));
    starts_waiting(&mut second);
    // Over several rounds of trying again.
    for _ in 0..10 {
        breathe().await;
        starts_waiting(&mut second);
    }
    first.send(b"first").await.unwrap();
    assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"first");
    let second = soon(second).await.unwrap();
    soon(second.send(b"second")).await.unwrap();
    assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"second");
}

async fn connect_to_a_full_backlog_fails_when_the_listener_goes(cell: Cell) {
    let place = Place::new();
    let listener = cell.options().bind(&place, 0).unwrap();
    let first = cell.connect(&place).await;
    let options = cell.options();
    let mut second = task::spawn(options.connect(&place));
    arm(&mut second).await;
    drop(listener);
    assert_eq!(soon(second).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let mut buffer = [0; 1];
    match soon(first.recv(&mut buffer)).await {
        Ok(len) => assert_eq!(len, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

async fn connect_dropped_while_it_waits_leaves_no_connection(cell: Cell) {
    let place = Place::new();
    let listener = cell.options().bind(&place, 0).unwrap();
    let first = cell.connect(&place).await;
    let options = cell.options();
    let mut second = task::spawn(options.connect(&place));
    arm(&mut second).await;
    drop(second);
    let accepted = soon(listener.accept()).await.unwrap();
    first.send(b"first").await.unwrap();
    assert_eq!(recv(&accepted).await, b"first");
    let mut none = task::spawn(listener.accept());
    for _ in 0..20 {
        arm(&mut none).await;
    }
}

async fn many_connects_to_a_short_backlog_all_arrive(cell: Cell) {
    let place = Place::new();
    let listener = cell.options().bind(&place, 1).unwrap();
    let path: Arc<Path> = place.as_ref().into();
    let clients: Vec<_> = (0..20u8)
        .map(|n| {
            let path = path.clone();
            tokio::spawn(async move {
                let client = cell.connect(&path).await;
                client.send(&[n]).await.unwrap();
                assert_eq!(recv(&client).await, [n]);
            })
        })
        .collect();
    let mut seen = Vec::new();
    for _ in 0..20 {
        let server = soon(listener.accept()).await.unwrap();
        let message = recv(&server).await;
        soon(server.send(&message)).await.unwrap();
        seen.extend(message);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<u8>>());
    for client in clients {
        soon(client).await.unwrap();
    }
}

fn connect_waits_in_a_runtime_without_time(cell: Cell) {
    connect_waits_without_time(cell, false);
}

/// It can be paused where there are no timers, and nothing moves it then.
fn under_a_paused_clock_without_timers_connect_waits(cell: Cell) {
    connect_waits_without_time(cell, true);
}

fn connect_waits_without_time(cell: Cell, paused: bool) {
    let place = Place::new();
    let runtime = cell.builder().enable_io().start_paused(paused).build().unwrap();
    runtime.block_on(async {
        let listener = cell.options().bind(&place, 0).unwrap();
        let _first = cell.connect(&place).await;
        let options = cell.options();
        let mut second = task::spawn(options.connect(&place));
        starts_waiting(&mut second);
        until_woken_without_time(&mut second).await;
        starts_waiting(&mut second);
        listener.accept().await.unwrap();
        second.await.unwrap();
    });
}

/// The capacity comes before the timeout, in the order of tokio's timers.
fn under_a_paused_clock_connect_waits_in_that_clocks_time(cell: Cell) {
    for paused_from_the_start in [true, false] {
        let place = Place::new();
        let runtime = cell.builder().enable_all().start_paused(paused_from_the_start).build();
        runtime.unwrap().block_on(async {
            let listener = cell.options().bind(&place, 0).unwrap();
            let _first = cell.connect(&place).await;
            if !paused_from_the_start {
                tokio::time::pause();
            }
            let begin = tokio::time::Instant::now();
            let (second, _) = tokio::join!(
                tokio::time::timeout(Duration::from_secs(60), cell.connect(&place)),
                async {
                    for _ in 0..5 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    listener.accept().await.unwrap()
                }
            );
            second.expect("no timeout, for a connection was accepted");
            let took = begin.elapsed();
            assert!((500..600).contains(&took.as_millis()), "{took:?}");
            // One that comes too late is one.
            let late = tokio::time::timeout(Duration::from_secs(60), cell.connect(&place)).await;
            assert!(late.is_err());
        });
    }
}

async fn until_woken_without_time<F: Future>(task: &mut task::Spawn<F>) {
    while !task.is_woken() {
        tokio::task::yield_now().await;
    }
}

async fn connect_says_what_is_wrong(cell: Cell) {
    let place = Place::new();
    let connect = async |path: &Path| soon(cell.options().connect(path)).await.unwrap_err();
    assert_eq!(connect(place.as_ref()).await.kind(), ErrorKind::NotFound);
    drop(cell.bind(&place));
    assert_eq!(connect(place.as_ref()).await.kind(), ErrorKind::ConnectionRefused);
    std::fs::remove_file(&place).unwrap();
    let _stream = std::os::unix::net::UnixListener::bind(&place).unwrap();
    assert_eq!(errno(&connect(place.as_ref()).await), Some(libc::EPROTOTYPE));
    assert_eq!(connect(Path::new("")).await.kind(), ErrorKind::InvalidInput);
}

async fn a_socket_that_is_not_connected_is_refused(cell: Cell) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let new = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let refused = cell.options().socket_from_fd(new.unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("not connected"), "{refused}");
    // A peer that is gone was one.
    let (a, b) = cell.pair();
    drop(b);
    let a = cell.options().socket_from_fd(a.into()).unwrap();
    assert_eq!(soon(a.recv(&mut [0; 8])).await.unwrap(), 0);
}

async fn bind_to_a_path_in_use_is_refused(cell: Cell) {
    let (place, listener) = listen(cell);
    let again = cell.options().bind(&place, 1).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AddrInUse);
    // The file stays when the listener goes.
    drop(listener);
    let again = cell.options().bind(&place, 1).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AddrInUse);
    std::fs::remove_file(&place).unwrap();
    cell.bind(&place);
}

async fn a_fresh_listener_waits_and_never_spins(cell: Cell) {
    // Between socket(2) and listen(2) a socket polls as hung up. The I/O driver must not see that:
    // on multi_thread another worker may be driving it just then.
    let elsewhere = tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_micros(1)).await;
        }
    });
    for _ in 0..300 {
        let listener = cell.bind(path_of(&abstract_name(60)));
        starts_waiting(&mut task::spawn(listener.accept()));
        starts_waiting(&mut task::spawn(std::future::poll_fn(|cx| listener.poll_accept(cx))));
        tokio::task::yield_now().await;
    }
    elsewhere.abort();
}

/// Connect, and send a number that identifies the client.
fn client(place: &Place, number: u8) -> Peer {
    let client = Peer::connect(place.as_ref());
    client.send(&[number]);
    client
}

async fn accepted_connections_come_in_the_order_of_connecting(cell: Cell) {
    let (place, listener) = listen(cell);
    let _clients: Vec<_> = (0..20).map(|n| client(&place, n)).collect();
    for n in 0..20 {
        let server = if n % 2 == 0 {
            soon(listener.accept()).await
        } else {
            soon(std::future::poll_fn(|cx| listener.poll_accept(cx))).await
        };
        assert_eq!(recv(&server.unwrap()).await, [n]);
    }
}

async fn accepts_are_served_first_in_first_out(cell: Cell) {
    let (place, listener) = listen(cell);
    let mut accepts: Vec<_> = (0..10).map(|_| task::spawn(listener.accept())).collect();
    arm_all(&mut accepts).await;
    let _clients: Vec<_> = (0..10).map(|n| client(&place, n)).collect();
    for (n, server) in soon(all(accepts)).await.into_iter().enumerate() {
        assert_eq!(recv(&server.unwrap()).await, [n as u8]);
    }

    let listener = Arc::new(listener);
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let (listener, (tx, rx)) = (listener.clone(), oneshot::channel());
        tasks.push(tokio::spawn(async move {
            let mut accept = task::spawn(listener.accept());
            starts_waiting(&mut accept);
            tx.send(()).unwrap();
            recv(&accept.await.unwrap()).await
        }));
        soon(rx).await.unwrap();
    }
    let _clients: Vec<_> = (0..10).map(|n| client(&place, n)).collect();
    let mut got = Vec::new();
    for task in tasks {
        got.push(soon(task).await.unwrap()[0]);
    }
    // They are woken in that order: tokio runs them in it on one thread.
    if !cell.flavor.is_single_threaded() {
        got.sort_unstable();
    }
    assert_eq!(got, (0..10).collect::<Vec<u8>>());
}

async fn next_accepts_get(listener: &UnixSeqpacketListener, numbers: impl Iterator<Item = u8>) {
    for number in numbers {
        let server = if number % 2 == 0 {
            soon(listener.accept()).await
        } else {
            soon(std::future::poll_fn(|cx| listener.poll_accept(cx))).await
        };
        assert_eq!(recv(&server.unwrap()).await, [number]);
    }
}

async fn an_accept_dropped_before_the_connection_loses_nothing(cell: Cell) {
    let (place, listener) = listen(cell);
    for round in 0..8 {
        let mut accept = task::spawn(listener.accept());
        starts_waiting(&mut accept);
        if round % 4 < 2 {
            arm(&mut accept).await;
        }
        drop(accept);
        let _clients = (client(&place, round), client(&place, round + 1));
        next_accepts_get(&listener, round..round + 2).await;
    }
}

async fn an_accept_dropped_after_the_connection_loses_nothing(cell: Cell) {
    let (place, listener) = listen(cell);
    for round in 0..8 {
        let mut accept = task::spawn(listener.accept());
        starts_waiting(&mut accept);
        if round % 4 < 2 {
            arm(&mut accept).await;
        }
        let _clients = (client(&place, round), client(&place, round + 1));
        drop(accept);
        next_accepts_get(&listener, round..round + 2).await;
    }
}

async fn an_accept_dropped_at_the_moment_of_completion_loses_nothing(cell: Cell) {
    let (place, listener) = listen(cell);
    for round in 0..8 {
        let mut accept = task::spawn(listener.accept());
        arm(&mut accept).await;
        let _clients = (client(&place, round), client(&place, round + 1));
        until_woken(&mut accept).await;
        drop(accept);
        next_accepts_get(&listener, round..round + 2).await;
    }
}

async fn accepts_dropped_in_races_with_connections_lose_nothing(cell: Cell) {
    let (place, listener) = listen(cell);
    let path = place.path.clone();
    let clients = std::thread::spawn(move || {
        let connect = |n: u8| {
            std::thread::sleep(Duration::from_micros(u64::from(n % 3) * 50));
            let client = Peer::connect(&path);
            client.send(&[n]);
            client
        };
        // Fewer than the backlog holds.
        (0..120).map(connect).collect::<Vec<_>>()
    });
    let mut expected = 0;
    let mut round = 0;
    while expected < 120 {
        let mut accept = task::spawn(listener.accept());
        let mut server = None;
        for _ in 0..round % 4 {
            if let Poll::Ready(accepted) = accept.poll() {
                server = Some(accepted);
                break;
            }
            tokio::task::yield_now().await;
        }
        round += 1;
        if round % 10 == 0 && server.is_none() {
            server = Some(soon(accept).await);
        }
        if let Some(server) = server {
            assert_eq!(recv(&server.unwrap()).await, [expected]);
            expected += 1;
        }
    }
    clients.join().unwrap();
}

async fn an_accept_dropped_wakes_a_task_that_polls(cell: Cell) {
    let (place, listener) = listen(cell);
    let mut accept = task::spawn(listener.accept());
    arm(&mut accept).await;
    let mut polled = task::spawn(std::future::poll_fn(|cx| listener.poll_accept(cx)));
    starts_waiting(&mut polled);
    let _client = client(&place, 1);
    until_woken(&mut accept).await;
    drop(accept);
    until_woken(&mut polled).await;
    assert_eq!(recv(&soon(polled).await.unwrap()).await, [1]);
}

async fn poll_accept_and_a_waiting_accept_both_get_a_connection(cell: Cell) {
    let (place, listener) = listen(cell);
    let mut accept = task::spawn(listener.accept());
    arm(&mut accept).await;
    let mut polled = task::spawn(std::future::poll_fn(|cx| listener.poll_accept(cx)));
    arm(&mut polled).await;
    let _clients = (client(&place, 1), client(&place, 2));
    let (one, other) = soon(async { tokio::join!(polled, accept) }).await;
    let mut got = [recv(&one.unwrap()).await, recv(&other.unwrap()).await];
    got.sort();
    assert_eq!(got, [[1], [2]]);
}

async fn dropping_a_listener_closes_connections_that_were_not_accepted(cell: Cell) {
    let (place, listener) = listen(cell);
    let clients: Vec<_> = (0..3).map(|n| client(&place, n)).collect();
    drop(listener);
    for client in &clients {
        soon(client.ended()).await;
    }
}

async fn dropping_a_listener_closes_a_connection_accepted_for_a_dropped_accept(cell: Cell) {
    for completed in [false, true] {
        let (place, listener) = listen(cell);
        let mut accept = task::spawn(listener.accept());
        arm(&mut accept).await;
        let clients: Vec<_> = (0..3).map(|n| client(&place, n)).collect();
        if completed {
            until_woken(&mut accept).await;
        }
        drop(accept);
        drop(listener);
        for client in &clients {
            soon(client.ended()).await;
        }
        let refused = soon(cell.options().connect(&place)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

/// A name that no other test uses.
fn abstract_name(len: usize) -> Vec<u8> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = format!("\0contract-{}-{count}-", std::process::id()).into_bytes();
    assert!(name.len() <= len);
    name.resize(len, 0);
    name
}

fn path_of(name: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(name))
}

async fn an_abstract_name_is_free_again_when_the_listener_is_dropped(cell: Cell) {
    let name = abstract_name(60);
    for round in 0..6 {
        let listener = soon(async {
            // A ring releases the listener when the accept completes.
            loop {
                match cell.options().bind(path_of(&name), 8) {
                    Ok(listener) => return listener,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse),
                }
                breathe().await;
            }
        })
        .await;
        let mut accept = task::spawn(listener.accept());
        if round % 3 > 0 {
            starts_waiting(&mut accept);
        }
        if round % 3 == 1 {
            breathe().await;
        }
    }
}

async fn a_forgotten_accept_leaves_other_calls_at_work(cell: Cell) {
    let (place, listener) = listen(cell);
    let mut accept = task::spawn(listener.accept());
    arm(&mut accept).await;
    std::mem::forget(accept);
    let first = client(&place, 0);
    breathe().await;
    let (other_place, other) = listen(cell);
    let _client = client(&other_place, 1);
    next_accepts_get(&other, 1..2).await;
    drop(listener);
    soon(first.ended()).await;
}

async fn a_path_of_108_bytes_works(cell: Cell) {
    let place = Place::new();
    let directory = place.path.parent().unwrap();
    let padding = 108 - directory.as_os_str().len() - 1;
    let path = directory.join("p".repeat(padding));
    assert_eq!(path.as_os_str().len(), 108);
    let listener = cell.bind(&path);
    assert_eq!(listener.local_addr().unwrap(), path);
    assert_eq!(listener.local_socket_addr().unwrap().as_pathname(), Some(&*path));
    let client = cell.connect(&path).await;
    client.send(b"message").await.unwrap();
    assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"message");
}

async fn a_path_with_a_nul_byte_inside_is_refused(cell: Cell) {
    let place = Place::new();
    let path = PathBuf::from(format!("{}\0tail", place.path.display()));
    let errors = [
        cell.options().bind(&path, 1).unwrap_err(),
        soon(cell.options().connect(&path)).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("NUL"), "{error}");
    }
    assert!(!place.path.exists());
}

async fn an_abstract_name_works_to_the_last_byte(cell: Cell) {
    for len in [40, 108] {
        let name = abstract_name(len);
        let listener = cell.bind(path_of(&name));
        assert_eq!(listener.local_addr().unwrap(), path_of(&name));
        assert_eq!(listener.local_socket_addr().unwrap().as_abstract_name(), Some(&name[1..]));
        let client = cell.connect(path_of(&name)).await;
        client.send(b"message").await.unwrap();
        assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"message");
        // One NUL byte less is another name.
        let other = soon(cell.options().connect(path_of(&name[..len - 1]))).await.unwrap_err();
        assert_eq!(other.kind(), ErrorKind::ConnectionRefused);
    }
    let too_long = [&b"\0"[..], &[b'x'; 108]].concat();
    let error = cell.options().bind(path_of(&too_long), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

async fn credentials_of_the_peer_are_known(cell: Cell) {
    let (place, listener) = listen(cell);
    let client = cell.connect(&place).await;
    let server = soon(listener.accept()).await.unwrap();
    let (a, _b) = cell.pair();
    for socket in [&client, &server, &a] {
        let credentials = socket.peer_cred().unwrap();
        assert_eq!(credentials, UCred::from_current_process());
        assert_eq!(credentials.pid(), Some(std::process::id() as i32));
    }
}

async fn accepted_sockets_are_close_on_exec_and_non_blocking(cell: Cell) {
    let (place, listener) = listen(cell);
    let client = cell.connect(&place).await;
    let mut accept = task::spawn(listener.accept());
    let early = accept.poll();
    let waited = match early {
        Poll::Ready(server) => server,
        Poll::Pending => soon(accept).await,
    };
    let mut accept = task::spawn(listener.accept());
    arm(&mut accept).await;
    let _other = client_socket(cell, &place).await;
    let armed = soon(accept).await;
    for socket in [&waited.unwrap(), &armed.unwrap(), &client] {
        assert!(is_close_on_exec(socket), "{socket:?}");
        assert!(is_nonblocking(socket), "{socket:?}");
    }
    assert!(is_close_on_exec(&listener) && is_nonblocking(&listener));
}

async fn client_socket(cell: Cell, place: &Place) -> UnixSeqpacket {
    soon(cell.connect(place)).await
}

async fn a_listener_can_be_given_away_and_taken_over(cell: Cell) {
    let (place, listener) = listen(cell);
    // One accept was dropped, perhaps in flight.
    let mut accept = task::spawn(listener.accept());
    arm(&mut accept).await;
    drop(accept);
    let fd = std::os::fd::OwnedFd::from(listener);
    let _client = client(&place, 7);
    assert!(once(|_| Poll::Ready(is_close_on_exec(&fd))) == Poll::Ready(true));
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
    rustix::fs::fcntl_setfl(&fd, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
    let listener = cell.options().listener_from_fd(fd).unwrap();
    assert!(is_nonblocking(&listener));
    assert_eq!(listener.local_addr().unwrap(), place.path);
    assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, [7]);
    let mut accept = task::spawn(listener.accept());
    starts_waiting(&mut accept);
}
