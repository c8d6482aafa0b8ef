//! G13 for addresses: paths that do not fit `sun_path`, and errors that name the address and the cause.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, RenameFlags, renameat_with, statat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use tokio_seqpacket::{Options, SocketAddr};

use crate::harness::descriptors::Full;
use crate::harness::matrix::{Flavor, only};
use crate::harness::messages::recv;
use crate::harness::syscalls::errno;
use crate::harness::waiting::soon;
use crate::harness::{Cell, Need, Test, alone};

pub fn tests() -> Vec<Test> {
    let with_root = alone(blocking![
        without_proc_a_long_path_is_an_error_that_says_so,
        without_proc_a_mode_that_the_umask_cuts_is_an_error_that_says_so,
        errors_name_the_directory_or_file_without_permission,
    ]);
    [
        tasks![
            a_path_over_108_bytes_works,
            sockets_return_the_long_path_that_they_were_given,
            the_kernels_address_of_a_peer_stays_where_it_is_no_short_path,
            a_long_path_is_bound_in_the_directory_that_was_opened,
            a_path_that_can_only_lead_to_a_directory_is_refused_naming_that,
            names_and_paths_beyond_the_limits_are_refused_naming_them,
            errors_name_an_abstract_name,
        ],
        // Else a child process of another test can keep a closed socket bound for a moment.
        alone(tasks![
            a_long_path_has_the_options_of_a_socket_file,
            errors_of_connect_name_the_path_and_the_cause,
            errors_of_bind_name_the_path_and_the_cause,
            too_many_open_files_are_named,
        ]),
        // It makes files, no messages.
        only(
            &[Flavor::CurrentThread],
            tasks![a_directory_that_is_replaced_meanwhile_keeps_the_file_of_another_listener],
        ),
        with_root.into_iter().map(|test| test.needs([Need::Root])).collect(),
    ]
    .concat()
}

/// A directory whose path has over 108 bytes.
fn deep() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    (directory, deep)
}

async fn a_path_over_108_bytes_works(cell: Cell) {
    let (directory, deep) = deep();
    let path = deep.join("socket");
    let padding = 109 - directory.path().as_os_str().len() - "//s".len();
    let shortest = directory.path().join("p".repeat(padding)).join("s");
    fs::create_dir(shortest.parent().unwrap()).unwrap();
    assert_eq!(shortest.as_os_str().len(), 109);
    for path in [&path, &shortest] {
        let listener = cell.bind(path);
        for blocking in [false, true] {
            let client = if blocking {
                cell.options().connect_blocking(path).unwrap()
            } else {
                cell.connect(path).await
            };
            client.send(b"message").await.unwrap();
            assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"message");
        }
    }
    // The longest path that system calls take, by many a slash.
    let slashes = "/".repeat(4095 - path.as_os_str().len());
    let longest = PathBuf::from(format!("{slashes}{}", path.display()));
    fs::remove_file(&path).unwrap();
    let listener = cell.bind(&longest);
    assert_eq!(listener.local_addr().unwrap(), longest);
    cell.connect(&longest).await;
}

async fn sockets_return_the_long_path_that_they_were_given(cell: Cell) {
    let (_directory, deep) = deep();
    let (path, own) = (deep.join("socket"), deep.join("client"));
    let listener = cell.bind(&path);
    assert_eq!(listener.local_addr().unwrap(), path);
    assert_eq!(listener.local_socket_addr().unwrap().as_pathname(), Some(&*path));
    let options = cell.options().local_addr(SocketAddr::from_path(&own).unwrap());
    let client = soon(options.connect(&path)).await.unwrap();
    assert_eq!(client.local_addr().unwrap().as_pathname(), Some(&*own));
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path));
    let server = soon(listener.accept()).await.unwrap();
    assert_eq!(server.local_addr().unwrap().as_pathname(), Some(&*path));
    // Which only the client knows, as the path of any socket that is made from a descriptor.
    let restored = cell.options().socket_from_fd(client.into()).unwrap();
    for unknown in [server.peer_addr(), restored.local_addr(), restored.peer_addr()] {
        let unknown = unknown.unwrap();
        assert!(unknown.as_pathname().unwrap().starts_with("/proc/self/fd"), "{unknown:?}");
    }
}

async fn the_kernels_address_of_a_peer_stays_where_it_is_no_short_path(cell: Cell) {
    let (directory, deep) = deep();
    let short = directory.path().join("s");
    let _listener = cell.bind(&short);
    symlink(&short, deep.join("link")).unwrap();
    let client = cell.connect(&deep.join("link")).await;
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*short));
}

async fn a_long_path_has_the_options_of_a_socket_file(cell: Cell) {
    let (_directory, deep) = deep();
    let path = deep.join("socket");
    let options = cell.options().mode(0o640).unlink_on_drop(true).replace_stale(true);
    // Nothing, and then a stale file.
    for _ in 0..2 {
        let listener = options.bind(&path, 8).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        let refused = options.bind(&path, 8).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        assert!(refused.to_string().contains("a socket is bound to it"), "{refused}");
        drop(listener);
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
        stale(&path);
    }
}

/// Leaves a socket file that no socket is bound to.
fn stale(path: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("s");
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(&other).unwrap()).unwrap();
    drop(socket);
    fs::rename(other, path).unwrap();
}

async fn a_long_path_is_bound_in_the_directory_that_was_opened(cell: Cell) {
    let (directory, deep) = deep();
    let path = deep.join("socket");
    let listener = cell.options().unlink_on_drop(true).bind(&path, 8).unwrap();
    let moved = directory.path().join("moved");
    fs::rename(&deep, &moved).unwrap();
    fs::create_dir(&deep).unwrap();
    fs::write(&path, "of another").unwrap();
    cell.connect(&moved.join("socket")).await;
    drop(listener);
    assert!(!moved.join("socket").exists());
    assert_eq!(fs::read(&path).unwrap(), b"of another");
}

/// Such a path is not taken for that of the file before the slash, to which no client with this path would connect.
async fn a_path_that_can_only_lead_to_a_directory_is_refused_naming_that(cell: Cell) {
    let (directory, deep) = deep();
    for directory in [directory.path(), &deep] {
        let _listener = cell.bind(directory.join("there"));
        for (name, end) in
            [("new", "/"), ("new", "//"), ("new", "/."), ("new", "/.."), ("", "."), ("", "..")]
        {
            let path = format!("{}/{name}{end}", directory.display());
            for options in [cell.options(), cell.options().replace_stale(true)] {
                let error = options.bind(&path, 8).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
                let text = error.to_string();
                assert!(text.starts_with(&path) && text.contains("only a directory"), "{text}");
            }
            assert!(!directory.join("new").exists(), "{path}");
        }
        for end in ["/", "/."] {
            let path = directory.join(format!("there{end}"));
            let error = soon(cell.options().connect(&path)).await.unwrap_err();
            says(&error, libc::ENOTDIR, path.to_str().unwrap(), "only a directory");
        }
    }
    for path in ["/", ".", ".."] {
        let error = cell.options().replace_stale(true).bind(path, 8).unwrap_err();
        assert!(error.to_string().contains("only a directory"), "{error}");
    }
}

/// The directory is exchanged for one with a listener in it, at any moment of a bind and of a removal.
async fn a_directory_that_is_replaced_meanwhile_keeps_the_file_of_another_listener(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&other).unwrap();
    let _listener = cell.bind(other.join("s"));
    let theirs = fs::File::open(&other).unwrap();
    let done = AtomicBool::new(false);
    let exchange = || {
        while !done.load(Ordering::Relaxed) {
            renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(exchange);
        let mut failed = None;
        for n in 0..6000 {
            let options = cell.options().unlink_on_drop(true).replace_stale(n % 2 == 1);
            drop(options.bind(one.join("s"), 8));
            if let Err(error) = statat(&theirs, "s", AtFlags::empty()) {
                failed = Some((n, error));
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
    });
}

async fn names_and_paths_beyond_the_limits_are_refused_naming_them(cell: Cell) {
    let (_directory, deep) = deep();
    for (len, fits) in [(83, true), (94, false), (255, false)] {
        let path = deep.join("n".repeat(len));
        match cell.options().bind(&path, 8) {
            Ok(_) => assert!(fits, "{len}"),
            Err(error) => {
                assert!(!fits, "{len}: {error}");
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.to_string().contains("exceeds the limit of 9"), "{error}");
                assert!(!path.exists());
            }
        }
    }
    // Connecting has no such limit.
    let path = deep.join("n".repeat(83));
    let long = deep.join("l".repeat(255));
    fs::remove_file(&path).unwrap();
    let _listener = cell.bind(&path);
    fs::rename(&path, &long).unwrap();
    cell.connect(&long).await;

    let beyond = deep.join("x/".repeat(2000));
    for error in [
        cell.options().bind(&beyond, 8).unwrap_err(),
        soon(cell.options().connect(&beyond)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("4095"), "{error}");
    }
}

fn without_proc_a_long_path_is_an_error_that_says_so(cell: Cell) {
    let runtime = cell.runtime();
    let _guard = runtime.enter();
    let (directory, deep) = deep();
    let root = fs::File::open("/").unwrap();
    let inside = Path::new("/").join(deep.strip_prefix(directory.path()).unwrap());
    let connect = |path: &Path| runtime.block_on(cell.options().connect(path));
    let listener = cell.bind(deep.join("there"));
    rustix::process::chroot(directory.path()).unwrap();
    let refused = [
        cell.options().bind(inside.join("socket"), 8).unwrap_err(),
        cell.options().replace_stale(true).bind(inside.join("socket"), 8).unwrap_err(),
        connect(&inside.join("there")).unwrap_err(),
    ];
    // What is missing is said, rather than that.
    let missing = connect(&inside.join("missing")).unwrap_err();
    cell.bind(Path::new("/short"));
    connect(Path::new("/short")).unwrap_err();
    rustix::process::fchdir(&root).unwrap();
    rustix::process::chroot(".").unwrap();
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("/proc"), "{error}");
    }
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(!deep.join("socket").exists());
    drop(listener);
}

fn without_proc_a_mode_that_the_umask_cuts_is_an_error_that_says_so(cell: Cell) {
    let runtime = cell.runtime();
    let _guard = runtime.enter();
    let directory = tempfile::tempdir().unwrap();
    let root = fs::File::open("/").unwrap();
    let umask = rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chroot(directory.path()).unwrap();
    let refused = cell.options().mode(0o666).bind("/cut", 8).unwrap_err();
    let uncut = cell.options().mode(0o600).bind("/uncut", 8);
    rustix::process::fchdir(&root).unwrap();
    rustix::process::chroot(".").unwrap();
    rustix::process::umask(umask);
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    for words in ["mode 0666", "umask", "/proc"] {
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(!directory.path().join("cut").exists());
    uncut.unwrap();
    let mode = fs::metadata(directory.path().join("uncut")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// The error has the kind and, as its source, the number of the operating system's.
#[track_caller]
fn says(error: &io::Error, number: i32, address: &str, cause: &str) {
    assert_eq!(errno(error), Some(number), "{error}");
    assert_eq!(error.kind(), io::Error::from_raw_os_error(number).kind(), "{error}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("{address}: ")) && text.contains(cause), "{text}");
}

async fn errors_of_connect_name_the_path_and_the_cause(cell: Cell) {
    let (directory, deep) = deep();
    for directory in [directory.path(), &deep] {
        let path = directory.join("s");
        let check = async |path: &Path, number, cause: &str| {
            let error = soon(cell.options().connect(path)).await.unwrap_err();
            says(&error, number, path.to_str().unwrap(), cause);
            let error = cell.options().connect_blocking(path).unwrap_err();
            says(&error, number, path.to_str().unwrap(), cause);
        };
        check(&path, libc::ENOENT, "its directory exists").await;
        check(Path::new("@not-a-name"), libc::ENOENT, "begins with a NUL byte").await;
        let missing = directory.join("missing");
        let cause = format!("the directory {} does not exist", missing.display());
        check(&missing.join("below/s"), libc::ENOENT, &cause).await;
        symlink("nowhere", &path).unwrap();
        check(&path, libc::ENOENT, "it is a symbolic link that leads nowhere").await;
        let cause = format!("{} is a symbolic link that leads nowhere", path.display());
        check(&path.join("s"), libc::ENOENT, &cause).await;
        fs::remove_file(&path).unwrap();

        fs::write(&path, "").unwrap();
        check(&path, libc::ECONNREFUSED, "a regular file, no socket").await;
        let cause = format!("{} is no directory", path.display());
        check(&path.join("s"), libc::ENOTDIR, &cause).await;
        fs::remove_file(&path).unwrap();
        check(directory, libc::ECONNREFUSED, "a directory, no socket").await;

        stale(&path);
        check(&path, libc::ECONNREFUSED, "`Options::replace_stale`").await;
        fs::remove_file(&path).unwrap();
        let short = tempfile::tempdir().unwrap();
        let short = short.path().join("s");
        let silent =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        rustix::net::bind(silent.as_ref().unwrap(), &SocketAddrUnix::new(&short).unwrap()).unwrap();
        fs::rename(&short, &path).unwrap();
        check(&path, libc::ECONNREFUSED, "does not listen").await;
        fs::remove_file(&path).unwrap();

        let stream = UnixListener::bind(&short).unwrap();
        fs::rename(&short, &path).unwrap();
        check(&path, libc::EPROTOTYPE, "a stream socket").await;
        // It has not noticed.
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let _datagram = UnixDatagram::bind(&short).unwrap();
        fs::rename(&short, &path).unwrap();
        check(&path, libc::EPROTOTYPE, "a datagram socket").await;
        fs::remove_file(&path).unwrap();
    }
}

async fn errors_of_bind_name_the_path_and_the_cause(cell: Cell) {
    let (directory, deep) = deep();
    for directory in [directory.path(), &deep] {
        let path = directory.join("s");
        let check = |path: &Path, number, cause: &str| {
            let error = cell.options().bind(path, 8).unwrap_err();
            says(&error, number, path.to_str().unwrap(), cause);
        };
        let missing = directory.join("missing");
        let cause = format!("the directory {} does not exist", missing.display());
        check(&missing.join("s"), libc::ENOENT, &cause);
        fs::write(&path, "").unwrap();
        check(&path, libc::EADDRINUSE, "it exists, as a regular file");
        check(&path.join("s"), libc::ENOTDIR, "is no directory");
        fs::remove_file(&path).unwrap();
        stale(&path);
        check(&path, libc::EADDRINUSE, "`Options::replace_stale`");
        // As the address of a client, too.
        let options = cell.options().local_addr(SocketAddr::from_path(&path).unwrap());
        let error = soon(options.connect("/any/listener")).await.unwrap_err();
        says(&error, libc::EADDRINUSE, path.to_str().unwrap(), "stale");
        fs::remove_file(&path).unwrap();
        let _listener = cell.bind(&path);
        check(&path, libc::EADDRINUSE, "a socket is bound to it");
        // With its own texts, it has the same source.
        let error = cell.options().replace_stale(true).bind(&path, 8).unwrap_err();
        says(&error, libc::EADDRINUSE, path.to_str().unwrap(), "a socket is bound to it");
        fs::remove_file(&path).unwrap();
    }
}

async fn errors_name_an_abstract_name(cell: Cell) {
    let name = format!("seqpacket paths {} {}", cell.name(), std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let shown = format!("@{name}");
    let error = soon(cell.options().connect_addr(&address)).await.unwrap_err();
    says(&error, libc::ECONNREFUSED, &shown, "no seqpacket socket listens");
    let _listener = cell.options().bind_addr(&address, 8).unwrap();
    let error = cell.options().bind_addr(&address, 8).unwrap_err();
    says(&error, libc::EADDRINUSE, &shown, "another socket");
}

/// Root becomes an ordinary user for it.
fn errors_name_the_directory_or_file_without_permission(cell: Cell) {
    const USER: u32 = 54_321;
    let runtime = cell.runtime();
    let _guard = runtime.enter();
    let (directory, deep) = deep();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let [link, directory_link] = ["link", "directory_link"].map(|name| directory.path().join(name));
    symlink(closed.join("s"), &link).unwrap();
    symlink(closed.join("below"), &directory_link).unwrap();
    let paths = [directory.path().join("s"), deep.join("s")];
    let options = cell.options().mode(0o600);
    let _listeners = paths.each_ref().map(|path| options.bind(path, 8).unwrap());
    let connect = |path: &Path| {
        let _guard = runtime.enter();
        // No socket is made, so no runtime has to be driven.
        cell.options().connect_blocking(path).unwrap_err()
    };
    let bind = |options: Options, path: &Path| {
        let _guard = runtime.enter();
        options.bind(path, 8).unwrap_err()
    };
    let user = || {
        let user = rustix::process::Uid::from_raw(USER);
        // Of this thread alone.
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        for path in &paths {
            let shown = path.to_str().unwrap();
            says(&connect(path), libc::EACCES, shown, "write to the file, which has mode 0600");
            let new = path.with_file_name("new");
            let cause = format!("make files in {}", path.parent().unwrap().display());
            says(&bind(cell.options(), &new), libc::EACCES, new.to_str().unwrap(), &cause);
            let error = bind(cell.options().replace_stale(true), path);
            says(&error, libc::EADDRINUSE, shown, "write to the file, which has mode 0600");
        }
        let inside = closed.join("below/s");
        let cause = format!("no permission to search {}, which has mode 0700", closed.display());
        let shown = inside.to_str().unwrap();
        says(&connect(&inside), libc::EACCES, shown, &cause);
        says(&bind(cell.options(), &inside), libc::EACCES, shown, &cause);
        // The directory of the link is not to blame, but what the link leads to.
        for (link, below) in [(&link, None), (&directory_link, Some("s"))] {
            let path = below.map_or(link.clone(), |below| link.join(below));
            let cause = format!("no permission to follow the symbolic link {}", link.display());
            says(&connect(&path), libc::EACCES, path.to_str().unwrap(), &cause);
        }
        let own = tempfile::tempdir().unwrap();
        let path = own.path().join("s");
        let error = bind(cell.options().owner(Some(0), None), &path);
        says(&error, libc::EPERM, path.to_str().unwrap(), "the owner or the mode");
        assert!(!path.exists());
    };
    std::thread::scope(|scope| scope.spawn(user).join().unwrap());
}

async fn too_many_open_files_are_named(cell: Cell) {
    let (directory, deep) = deep();
    let path = directory.path().join("s");
    let long = deep.join("s");
    let _listeners = [cell.bind(&path), cell.bind(&long)];
    // What is made with first use, is made.
    cell.connect(&path).await;
    let mut full = Full::new();
    let shown = path.to_str().unwrap();
    let error = soon(cell.options().connect(&path)).await.unwrap_err();
    says(&error, libc::EMFILE, shown, "RLIMIT_NOFILE");
    let error = cell.options().bind(&path, 8).unwrap_err();
    says(&error, libc::EMFILE, shown, "RLIMIT_NOFILE");
    // One is enough for the socket, not for the file.
    full.free(1);
    let error = soon(cell.options().connect(&long)).await.unwrap_err();
    says(&error, libc::EMFILE, long.to_str().unwrap(), "RLIMIT_NOFILE");
}
