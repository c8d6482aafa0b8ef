//! Addresses, and sockets that are bound and connected to them.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_seqpacket::{
    Activation, Incoming, Options, SocketAddr, UnixSeqpacket, UnixSeqpacketListener,
};

use crate::with;

#[derive(Debug, Args)]
pub struct SocketFile {
    /// Permissions of the socket file, in octal
    #[arg(long, value_parser = octal, value_name = "OCTAL")]
    mode: Option<u32>,

    /// Replace a socket file that no process listens at
    #[arg(long)]
    replace: bool,
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o777) => Ok(mode),
        _ => Err("not an octal number up to 777".into()),
    }
}

/// `@name` is a name in the abstract namespace, anything else a path.
fn address(text: &Path) -> io::Result<SocketAddr> {
    match text.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_path(text),
    }
}

pub fn bind(at: &Path, file: &SocketFile, options: &Options) -> io::Result<UnixSeqpacketListener> {
    let mut options =
        options.clone().pass_credentials(true).replace_stale(file.replace).unlink_on_drop(true);
    if let Some(mode) = file.mode {
        options = options.mode(mode);
    }
    let listener = address(at).and_then(|address| options.bind_addr(&address, 128));
    listener.map_err(|error| with(&error, "cannot listen".to_owned()))
}

/// Takes the listening socket that systemd has passed under a name.
pub fn activated(name: &str, options: &Options) -> io::Result<UnixSeqpacketListener> {
    let mut passed = Activation::from_env()?
        .ok_or_else(|| io::Error::other("no sockets were passed (LISTEN_FDS, LISTEN_PID)"))?;
    let fd = passed.take(name).ok_or_else(|| {
        let names: Vec<_> = passed.names().collect();
        io::Error::other(format!("none of the passed sockets is named {name:?}: {names:?}"))
    })?;
    options.clone().pass_credentials(true).listener_from_fd(fd)
}

pub async fn accept(incoming: &mut Incoming<'_>) -> io::Result<UnixSeqpacket> {
    let socket = incoming.accept().await?;
    // A client that came before a passed listener had the option.
    socket.set_pass_credentials(true)?;
    Ok(socket)
}

pub async fn connect(to: &Path, options: &Options) -> io::Result<UnixSeqpacket> {
    // This also distinguishes an empty message from the end.
    let options = options.clone().pass_credentials(true);
    let connected = match address(to) {
        Ok(address) => options.connect_addr(&address).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| with(&error, "cannot connect".to_owned()))
}

/// Connects from a local address. The file, if it is a path, is removed with the value.
pub async fn connect_from(
    local: Option<PathBuf>,
    to: &Path,
    mut options: Options,
) -> io::Result<(UnixSeqpacket, Option<Remove>)> {
    if let Some(local) = &local {
        options = options.local_addr(address(local)?);
    }
    let socket = connect(to, &options).await?;
    let bound = local.filter(|_| socket.local_addr().is_ok_and(|a| a.as_pathname().is_some()));
    Ok((socket, bound.map(Remove)))
}

/// The file of `--bind`.
pub struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How often [`hung_up`] is asked: no event reports a peer that closes after it has shut down writing.
pub const CLOSE_CHECK: Duration = Duration::from_millis(50);

/// Returns whether the peer has closed, and not only shut down writing.
pub fn hung_up(socket: &UnixSeqpacket) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Raises the send buffer for a message that exceeds it. The kernel's limit stays: net.core.wmem_max.
pub fn raise_send_buffer(socket: &UnixSeqpacket, message_len: usize) -> io::Result<()> {
    // Less than the default of any kernel.
    if message_len > 64 << 10 && message_len > socket.max_message_size()? {
        socket.set_send_buffer_size(message_len + (64 << 10))?;
    }
    Ok(())
}

/// Shuts down one direction. A peer that has gone is no failure.
pub fn shut_down(socket: &UnixSeqpacket, how: std::net::Shutdown) -> io::Result<()> {
    match socket.shutdown(how) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_at_sign_is_the_abstract_namespace() {
        let name = address("@name".as_ref()).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"name"[..]));
        assert!(address("./@name".as_ref()).unwrap().as_pathname().is_some());
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal("600"), Ok(0o600));
        assert!(octal("888").is_err() && octal("1777").is_err());
    }
}
