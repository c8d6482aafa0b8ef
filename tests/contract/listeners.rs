//! G4 in production: a listener's file, shortages, a stream of connections.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_seqpacket::SocketAddr;
use tokio_test::task;

use crate::harness::messages::recv;
use crate::harness::peer::Peer;
use crate::harness::waiting::{breathe, soon, starts_waiting};
use crate::harness::{Cell, Flavor, Test, alone, only};

pub fn tests() -> Vec<Test> {
    [
        tasks![
            a_socket_file_has_the_mode_that_was_asked_for,
            a_socket_file_has_the_owner_that_was_asked_for,
            an_abstract_name_has_no_mode,
            the_file_of_a_living_listener_is_not_replaced,
            what_is_no_socket_is_not_replaced,
            a_listener_removes_its_file,
            a_listener_leaves_the_file_of_another,
            a_connect_that_fails_leaves_the_file_of_another,
            a_listener_removes_its_file_by_a_path_through_a_descriptor,
            a_listener_given_away_leaves_its_file,
            incoming_accepts_in_order,
            incoming_dropped_loses_no_connection,
            accepting_does_not_block_where_the_listener_was_made_blocking,
            accepting_from_a_listener_that_was_shut_down_is_an_error,
            an_accept_that_waits_ends_when_the_listener_is_shut_down,
        ],
        alone(tasks![incoming_waits_while_there_are_no_descriptors]),
        // A child process of another test has a copy of every descriptor for a moment. A closed listener stays bound until then.
        alone(tasks![
            a_stale_file_is_replaced,
            a_stale_file_is_replaced_whatever_locks_its_directory,
            a_socket_that_does_not_listen_yet_is_not_replaced,
            a_stale_file_that_another_is_replacing_is_left_to_it,
        ]),
        alone(blocking![
            several_that_replace_a_stale_file_leave_one_listener,
            a_stale_file_is_replaced_where_the_directory_may_not_be_read,
        ]),
        alone(only(
            &[Flavor::CurrentThread],
            blocking![under_a_paused_clock_incoming_waits_in_that_clocks_time],
        )),
    ]
    .concat()
}

/// It was bound to a name that another has taken over by then.
async fn a_connect_that_fails_leaves_the_file_of_another(cell: Cell) {
    let (directory, server) = place();
    let name = directory.path().join("client");
    let listener = cell.options().bind(&server, 0).unwrap();
    let _first = soon(cell.options().connect(&server)).await.unwrap();
    let options = cell.options().local_addr(SocketAddr::from_path(&name).unwrap());
    for drops in [false, true] {
        let mut connect = task::spawn(options.connect(&server));
        starts_waiting(&mut connect);
        assert!(name.exists());
        fs::remove_file(&name).unwrap();
        fs::write(&name, "of another").unwrap();
        if drops {
            drop(connect);
        } else {
            soon(listener.accept()).await.unwrap();
            let connected = soon(connect).await.unwrap();
            assert_eq!(connected.local_addr().unwrap().as_pathname(), Some(&*name));
            drop(soon(listener.accept()).await.unwrap());
            let _again = soon(cell.options().connect(&server)).await.unwrap();
        }
        assert_eq!(fs::read(&name).unwrap(), b"of another");
        fs::remove_file(&name).unwrap();
    }
    // Its own it removes.
    let mut connect = task::spawn(options.connect(&server));
    starts_waiting(&mut connect);
    assert!(name.exists());
    drop(connect);
    assert!(!name.exists());
}

async fn a_listener_removes_its_file_by_a_path_through_a_descriptor(cell: Cell) {
    let (directory, path) = place();
    let opened = fs::File::open(directory.path()).unwrap();
    let through = format!("/proc/self/fd/{}/socket", opened.as_raw_fd());
    let listener = cell.options().unlink_on_drop(true).bind(through, 8).unwrap();
    assert!(path.exists());
    drop(opened);
    drop(listener);
    assert!(!path.exists());
}

/// `O_NONBLOCK` belongs to the open file, which others can share.
async fn accepting_does_not_block_where_the_listener_was_made_blocking(cell: Cell) {
    let listener = cell.options().bind_addr(&SocketAddr::unnamed(), 8).unwrap();
    rustix::io::ioctl_fionbio(&listener, false).unwrap();
    let mut accept = task::spawn(listener.accept());
    starts_waiting(&mut accept);
    rustix::io::ioctl_fionbio(&listener, false).unwrap();
    let address = listener.local_socket_addr().unwrap();
    let _client = soon(cell.options().connect_addr(&address)).await.unwrap();
    soon(accept).await.unwrap();
}

async fn accepting_from_a_listener_that_was_shut_down_is_an_error(cell: Cell) {
    for how in [rustix::net::Shutdown::Both, rustix::net::Shutdown::Read] {
        let listener = cell.options().bind_addr(&SocketAddr::unnamed(), 8).unwrap();
        rustix::net::shutdown(&listener, how).unwrap();
        let refused = soon(listener.accept()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("shut down"), "{refused}");
        let refused = soon(std::future::poll_fn(|cx| listener.poll_accept(cx))).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
}

async fn an_accept_that_waits_ends_when_the_listener_is_shut_down(cell: Cell) {
    let listener = cell.options().bind_addr(&SocketAddr::unnamed(), 8).unwrap();
    let mut accept = task::spawn(listener.accept());
    starts_waiting(&mut accept);
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
    assert_eq!(soon(accept).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    (directory, path)
}

async fn a_socket_file_has_the_mode_that_was_asked_for(cell: Cell) {
    for mode in [0o600, 0o666, 0o700, 0o000] {
        let (_directory, path) = place();
        let listener = cell.options().mode(mode).bind(&path, 8).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        drop(listener);
    }
}

async fn a_socket_file_has_the_owner_that_was_asked_for(cell: Cell) {
    let (_directory, path) = place();
    if rustix::process::geteuid().is_root() {
        let options = cell.options().owner(Some(12), Some(34)).mode(0o660);
        let _listener = options.bind(&path, 8).unwrap();
        let file = fs::symlink_metadata(&path).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (12, 34, 0o660));
    } else {
        let options = cell.options().owner(Some(0), None);
        assert_eq!(options.bind(&path, 8).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(!path.exists());
        let own = rustix::process::getgid().as_raw();
        let _listener = cell.options().owner(None, Some(own)).bind(&path, 8).unwrap();
    }
}

async fn an_abstract_name_has_no_mode(cell: Cell) {
    let address = SocketAddr::from_abstract_name("tokio-seqpacket has no mode").unwrap();
    for options in [cell.options().mode(0o600), cell.options().owner(Some(0), None)] {
        let error = options.bind_addr(&address, 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

async fn a_stale_file_is_replaced(cell: Cell) {
    let (_directory, path) = place();
    drop(cell.bind(&path));
    assert_eq!(cell.options().bind(&path, 8).unwrap_err().kind(), ErrorKind::AddrInUse);
    let listener = cell.options().replace_stale(true).bind(&path, 8).unwrap();
    let client = cell.connect(&path).await;
    soon(client.send(b"message")).await.unwrap();
    assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"message");
}

async fn the_file_of_a_living_listener_is_not_replaced(cell: Cell) {
    let (_directory, path) = place();
    let listener = cell.options().bind(&path, 0).unwrap();
    let options = cell.options().replace_stale(true);
    let refused = || {
        let error = options.bind(&path, 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("a socket is bound to it"), "{error}");
    };
    refused();
    // The first connection is this one: the listener does not notice that a bind has probed it.
    let client = cell.connect(&path).await;
    // Its backlog is full.
    refused();
    let first = soon(listener.accept()).await.unwrap();
    soon(client.send(b"message")).await.unwrap();
    assert_eq!(recv(&first).await, b"message");
    // A Unix socket of another type.
    let (_directory, path) = place();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(options.bind(&path, 8).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
}

async fn what_is_no_socket_is_not_replaced(cell: Cell) {
    let (_directory, path) = place();
    fs::write(&path, "precious").unwrap();
    let error = cell.options().replace_stale(true).bind(&path, 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let link = path.with_file_name("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(cell.options().replace_stale(true).bind(&link, 8).is_err());
    assert_eq!(fs::read_to_string(&link).unwrap(), "precious");
}

/// Threads are as good as processes here: they share nothing but the directory.
fn several_that_replace_a_stale_file_leave_one_listener(cell: Cell) {
    const STARTERS: usize = 8;
    let (directory, path) = place();
    let runtime = cell.runtime();
    let listen = || {
        let _guard = runtime.enter();
        cell.options().replace_stale(true).bind(&path, 8)
    };
    let client = {
        let _guard = runtime.enter();
        drop(cell.bind(&path));
        || runtime.block_on(cell.options().connect(&path))
    };
    let (begin, end) = (Barrier::new(STARTERS + 1), Barrier::new(STARTERS + 1));
    let listening = AtomicUsize::new(0);
    let starter = || {
        for _ in 0..ROUNDS {
            begin.wait();
            let bound = listen();
            match &bound {
                Ok(listener) => {
                    assert_eq!(listener.local_addr().unwrap(), path);
                    listening.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}"),
            }
            end.wait();
            // Counted.
            end.wait();
            drop(bound);
        }
    };
    std::thread::scope(|scope| {
        let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(starter)).collect();
        let mut wrong = Vec::new();
        for round in 0..ROUNDS {
            begin.wait();
            end.wait();
            let count = listening.swap(0, Ordering::Relaxed);
            let names: Vec<_> = names(&directory);
            let reached = client().map(drop);
            if (count, reached.is_ok(), &*names) != (1, true, &["socket".to_owned()]) {
                wrong.push((round, count, reached, names));
            }
            end.wait();
        }
        for starter in starters {
            starter.join().unwrap();
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    });
}

const ROUNDS: usize = 1000;

fn names(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// systemd advises services below /tmp to hold such a lock. Any user that may read the directory can.
async fn a_stale_file_is_replaced_whatever_locks_its_directory(cell: Cell) {
    let (directory, path) = place();
    drop(cell.bind(&path));
    let replace = || cell.options().replace_stale(true).bind(&path, 8);
    let lock = fs::File::open(directory.path()).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    drop(replace().unwrap());
    // The lock is the open file's, so it is a child's alone from here on.
    let mut holder = std::process::Command::new("cat");
    let mut holder = holder.stdin(Stdio::piped()).stdout(lock).spawn().expect("cat");
    let own = fs::File::open(directory.path()).unwrap();
    let locked = rustix::fs::flock(&own, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(locked, Err(rustix::io::Errno::WOULDBLOCK));
    let replaced = replace();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    drop(replaced.unwrap());
    assert_eq!(names(&directory), ["socket"]);
}

async fn a_socket_that_does_not_listen_yet_is_not_replaced(cell: Cell) {
    for kind in [SocketType::SEQPACKET, SocketType::STREAM, SocketType::DGRAM] {
        let (directory, path) = place();
        let other = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let address = SocketAddrUnix::new(&path).unwrap();
        rustix::net::bind(&other, &address).unwrap();
        let inode = fs::symlink_metadata(&path).unwrap().ino();
        let options = cell.options().replace_stale(true);
        let error = options.bind(&path, 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{kind:?}: {error}");
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode);
        if kind == SocketType::SEQPACKET {
            rustix::net::listen(&other, 8).unwrap();
            Peer::connect(&path);
        }
        drop(other);
        let listener = options.bind(&path, 8).unwrap();
        assert_eq!(listener.local_addr().unwrap(), path);
        assert_eq!(names(&directory), ["socket"]);
    }
}

/// The name that keeps others away while a file is replaced.
fn claim_of(file: &Path) -> PathBuf {
    let inode = fs::symlink_metadata(file).unwrap().ino();
    file.with_file_name(format!(".seqpacket-{inode:x}"))
}

async fn a_stale_file_that_another_is_replacing_is_left_to_it(cell: Cell) {
    let (directory, path) = place();
    drop(cell.bind(&path));
    let claim = claim_of(&path);
    let other = cell.bind(&claim);
    let options = cell.options().replace_stale(true);
    let error = options.bind(&path, 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("another process"), "{error}");
    // It was killed, and so was the next, which was about to replace what the first had left.
    drop(other);
    drop(cell.bind(claim_of(&claim)));
    let _listener = options.bind(&path, 8).unwrap();
    assert_eq!(names(&directory), ["socket"]);
}

/// Sticky, as /tmp. Root becomes an ordinary user for it, and plays two more.
fn a_stale_file_is_replaced_where_the_directory_may_not_be_read(cell: Cell) {
    const USER: u32 = 54_321;
    let is_root = rustix::process::geteuid().is_root();
    let (directory, path) = place();
    let theirs = path.with_file_name("theirs");
    let runtime = cell.runtime();
    let _guard = runtime.enter();
    for path in [&path, &theirs] {
        drop(cell.bind(path));
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // Made to keep the file from being replaced.
    let claim = claim_of(&path);
    let _squatter = is_root.then(|| cell.bind(&claim));
    if is_root {
        std::os::unix::fs::chown(&path, Some(USER), None).unwrap();
        std::os::unix::fs::chown(&claim, Some(USER + 1), None).unwrap();
    }
    let mode = if is_root { 0o1733 } else { 0o1333 };
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    let user = || {
        let _guard = runtime.enter();
        if is_root {
            let user = rustix::process::Uid::from_raw(USER);
            // Of this thread alone.
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        }
        let unreadable = fs::read_dir(directory.path()).unwrap_err();
        assert_eq!(unreadable.kind(), ErrorKind::PermissionDenied);
        let options = cell.options().replace_stale(true);
        for _ in 0..2 {
            drop(options.bind(&path, 8).unwrap());
        }
        if is_root {
            // Which only its owner may remove.
            let refused = options.bind(&theirs, 8).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        }
    };
    std::thread::scope(|scope| scope.spawn(user).join().unwrap());
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut left = names(&directory);
    left.retain(|name| !is_root || directory.path().join(name) != claim);
    left.sort();
    assert_eq!(left, ["socket", "theirs"]);
}

async fn a_listener_removes_its_file(cell: Cell) {
    let (_directory, path) = place();
    let listener = cell.options().unlink_on_drop(true).bind(&path, 8).unwrap();
    assert!(path.exists());
    drop(listener);
    assert!(!path.exists());
    drop(cell.bind(&path));
    assert!(path.exists(), "not asked for");
}

async fn a_listener_leaves_the_file_of_another(cell: Cell) {
    let (_directory, path) = place();
    let old = cell.options().unlink_on_drop(true).bind(&path, 8).unwrap();
    fs::rename(&path, path.with_file_name("moved")).unwrap();
    let new = cell.bind(&path);
    drop(old);
    let client = cell.connect(&path).await;
    assert!(soon(new.accept()).await.is_ok());
    drop(client);
}

async fn a_listener_given_away_leaves_its_file(cell: Cell) {
    let (_directory, path) = place();
    let listener = cell.options().unlink_on_drop(true).bind(&path, 8).unwrap();
    let fd = OwnedFd::from(listener);
    let _client = Peer::connect(&path);
    drop(fd);
    assert!(path.exists());
}

async fn incoming_accepts_in_order(cell: Cell) {
    let (_directory, path) = place();
    let listener = cell.bind(&path);
    let mut incoming = listener.incoming().unwrap();
    let clients: Vec<_> = (0..3u8)
        .map(|n| {
            let client = Peer::connect(&path);
            client.send(&[n]);
            client
        })
        .collect();
    for n in 0..3u8 {
        assert_eq!(recv(&soon(incoming.accept()).await.unwrap()).await, [n]);
    }
    drop(clients);
    #[cfg(feature = "stream")]
    {
        use futures_core::Stream;
        let mut incoming = std::pin::pin!(incoming);
        let mut next = task::spawn(std::future::poll_fn(|cx| incoming.as_mut().poll_next(cx)));
        starts_waiting(&mut next);
        let client = Peer::connect(&path);
        client.send(b"streamed");
        let socket = soon(next).await.expect("it never ends").unwrap();
        assert_eq!(recv(&socket).await, b"streamed");
    }
}

async fn incoming_dropped_loses_no_connection(cell: Cell) {
    let (_directory, path) = place();
    let listener = cell.bind(&path);
    let mut incoming = listener.incoming().unwrap();
    let mut accept = task::spawn(incoming.accept());
    starts_waiting(&mut accept);
    let client = Peer::connect(&path);
    client.send(b"message");
    breathe().await;
    drop(accept);
    drop(incoming);
    assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"message");
}

/// From here on the process has none to spare. Returns the limit there was.
fn leave_no_descriptors() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let lowest_free = fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free), ..before }).unwrap();
    before
}

async fn incoming_waits_while_there_are_no_descriptors(cell: Cell) {
    let (_directory, path) = place();
    let listener = cell.bind(&path);
    // What the runtime and the backend make with their first use.
    let first = cell.connect(&path).await;
    drop((soon(listener.accept()).await.unwrap(), first));
    breathe().await;
    let mut incoming = listener.incoming().unwrap();
    let client = Peer::connect(&path);
    client.send(b"patience");

    let before = leave_no_descriptors();
    let plain = soon(listener.accept()).await.unwrap_err();
    assert_eq!(plain.raw_os_error(), Some(libc::EMFILE));
    let mut polls = 1;
    let mut accept = task::spawn(incoming.accept());
    starts_waiting(&mut accept);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(300) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if accept.is_woken() {
            polls += 1;
            starts_waiting(&mut accept);
        }
    }
    // 5, 10, 20, ... ms, each shortened by half at most.
    assert!((2..=9).contains(&polls), "polled {polls} times in 300 ms");
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(recv(&soon(accept).await.unwrap()).await, b"patience");
}

fn under_a_paused_clock_incoming_waits_in_that_clocks_time(cell: Cell) {
    let (_directory, path) = place();
    let runtime = cell.builder().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let listener = cell.bind(&path);
        // What the runtime and the backend make with their first use.
        let first = cell.connect(&path).await;
        drop((listener.accept().await.unwrap(), first));
        let mut incoming = listener.incoming().unwrap();
        let client = Peer::connect(&path);
        client.send(b"patience");
        let before = leave_no_descriptors();
        let (accepted, ()) =
            tokio::join!(tokio::time::timeout(Duration::from_secs(60), incoming.accept()), async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                setrlimit(Resource::Nofile, before).unwrap();
            });
        let accepted = accepted.expect("no timeout, for there were descriptors in time").unwrap();
        assert_eq!(recv(&accepted).await, b"patience");
    });
}
