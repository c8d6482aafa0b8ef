//! Writes the seed corpora, from what real receives and real sockets give: `cargo run --example seeds`
//! in `fuzz/`.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::net::sockopt::set_socket_passcred;
use tokio_seqpacket::ancillary::AncillaryMessageWriter;
use tokio_seqpacket::{SocketAddr, UnixSeqpacket, UnixSeqpacketListener};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(corpus.join(target))?;
        std::fs::write(corpus.join(target).join(name), bytes)
    };

    // Control data, after one byte that says what is done with it, and one of room to move it into.
    for credentials in [false, true] {
        for fds in [0, 1, 3, 253] {
            for room in [0, 16, 20, 24, 64, 2048] {
                let control = received(credentials, fds, room).await?;
                let from = if credentials { "credentials" } else { "plain" };
                // One of them for every action; for the others the one that cuts again.
                let all = fds == 3 && room == 2048;
                for action in if all { 0..5 } else { 3..4 } {
                    let name = format!("{from}-{fds}-{room}-{action}");
                    write("control", &name, &[&[action, 4], &control[..]].concat())?;
                }
            }
        }
    }

    let directory = tempfile::tempdir()?;
    let path = directory.path().join("socket");
    let listener = UnixSeqpacketListener::bind(&path)?;
    for (name, path) in [
        ("pathname", listener.local_addr()?),
        ("unnamed", "".into()),
        ("abstract", "\0a name\0in the abstract".into()),
        ("longest", "p".repeat(108).into()),
    ] {
        let address = SocketAddr::from_path(&path);
        let bytes = path.as_os_str().as_encoded_bytes();
        assert_eq!(address.is_err(), bytes.is_empty());
        // As getsockname(2) has it: the NUL byte behind a path counts, though it may not fit.
        let nul = !bytes.is_empty() && bytes[0] != 0;
        let len = (2 + bytes.len() + usize::from(nul)) as u16;
        let family = (rustix::net::AddressFamily::UNIX.as_raw()).to_ne_bytes();
        write("address", name, &[&len.to_le_bytes(), &family, bytes].concat())?;
    }

    // Scripts: the common courses of a receive and a send (fuzzing.rs and model/socket.rs have the
    // numbers).
    let (arrive, receive, attend, finish, reap) = (22, 27, 0, 6, 12);
    let (come, call, poll, drop, read) = (65, 71, 76, 80, 83);
    let (send_attend, send_finish, send_reap, go_on) = (44, 50, 56, 88);
    let scripts: [(&str, &[u8]); 5] = [
        ("received", &[receive, attend, arrive, finish, reap, 32]),
        ("dropped", &[receive, attend, arrive, finish, 38, reap, 41]),
        ("cancelled", &[receive, attend, 38, attend, finish, reap]),
        (
            "queued",
            &[
                come,
                call,
                come,
                call,
                come,
                call,
                send_attend,
                read,
                send_finish,
                send_reap,
                go_on,
                poll,
            ],
        ),
        (
            "died",
            &[receive, attend, come, call, come, call, come, call, send_attend, drop, 93, 94, 95],
        ),
    ];
    for (name, kinds) in scripts {
        let events: Vec<u8> = kinds.iter().flat_map(|kind| [*kind, 0]).collect();
        write("script", name, &events)?;
    }
    Ok(())
}

/// The control data of one message, as the kernel wrote it. Its descriptors are closed again.
async fn received(credentials: bool, fds: usize, room: usize) -> io::Result<Vec<u8>> {
    let (a, b) = UnixSeqpacket::pair()?;
    set_socket_passcred(&b, credentials)?;
    let file = std::fs::File::open("/dev/null")?;
    let mut buffer = [0; 2048];
    let mut ancillary = AncillaryMessageWriter::new(&mut buffer);
    if fds > 0 {
        ancillary.add_fds(&vec![file.as_fd(); fds])?;
    }
    a.send_vectored_with_ancillary(&[IoSlice::new(b"message")], &mut ancillary).await?;
    let mut control = vec![0; room];
    let mut bytes = [0; 16];
    let (_, reader) =
        b.recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut bytes)], &mut control).await?;
    let len = reader.len();
    drop(reader);
    control.truncate(len);
    Ok(control)
}
