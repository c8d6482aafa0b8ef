//! [`SocketAddr`]: a Unix socket address, to and from `sockaddr_un`. Pure.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::mem::offset_of;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::path::{Path, PathBuf};

use rustix::net::SocketAddrUnix;

/// Bytes that `sun_path` holds.
pub(crate) const CAPACITY: usize = 108;

/// The longest path in bytes that a system call takes (`PATH_MAX` without its NUL byte).
const LONGEST_PATH: usize = 4095;

/// Holds the address of a Unix socket: a path, a name in the abstract namespace, or none.
///
/// See `unix(7)`. A path may use all 108 bytes of `sun_path`. The terminating NUL byte is left out
/// then, which Linux accepts.
///
/// # Longer paths
///
/// Paths of up to 4095 bytes work as well, where `/proc` is mounted. Connecting opens the file
/// (`O_PATH`), and binding opens the directory. The kernel then gets a path through
/// `/proc/self/fd`. To bind, the file name may have 83 bytes, or a few more while raw fds are
/// small.
///
/// The kernel reports that short path as the socket's address, and it leads nowhere in other
/// processes. The sockets and listeners of this crate return the path that they were given. A
/// listener's accepted sockets do so too. That path is not known to a socket that was made from a
/// descriptor, and to a client that connected by another path of at most 108 bytes. Those return
/// the kernel's.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::path::Path;
/// use tokio_seqpacket::SocketAddr;
///
/// let path = SocketAddr::from_path("/run/service.sock")?;
/// assert_eq!(path.as_pathname(), Some(Path::new("/run/service.sock")));
///
/// // Two ways to write a name in the abstract namespace.
/// let name = SocketAddr::from_abstract_name("service")?;
/// assert_eq!(name, SocketAddr::from_path("\0service")?);
/// assert_eq!(name.as_abstract_name(), Some(&b"service"[..]));
///
/// assert!(SocketAddr::unnamed().is_unnamed());
/// assert!(SocketAddr::from_path("p".repeat(4096)).is_err());
///
/// // To std's type and back.
/// let std = std::os::unix::net::SocketAddr::try_from(name.clone())?;
/// assert_eq!(SocketAddr::from(std), name);
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SocketAddr {
    name: Name,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Unnamed,
    Pathname(PathBuf),
    /// Without the leading NUL byte.
    Abstract(Vec<u8>),
}

impl SocketAddr {
    /// Creates the address that a path stands for in this crate.
    ///
    /// A leading NUL byte makes it a name in the abstract namespace, of which every byte counts.
    /// Anything else is a pathname.
    ///
    /// # Errors
    /// Returns `InvalidInput` for an empty path, for a path over 4095 bytes, for an abstract name over 108
    /// bytes (its leading NUL counts), and for a NUL byte inside a pathname.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::SocketAddr;
    ///
    /// assert!(SocketAddr::from_path("/run/service.sock")?.as_pathname().is_some());
    /// assert!(SocketAddr::from_path("\0service")?.as_abstract_name().is_some());
    /// for wrong in ["", "/run/a\0b"] {
    ///     assert_eq!(SocketAddr::from_path(wrong).unwrap_err().kind(), ErrorKind::InvalidInput);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn from_path<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if bytes.len() > LONGEST_PATH {
            return invalid(format!(
                "socket path of {} bytes exceeds the limit of {LONGEST_PATH} bytes (PATH_MAX)",
                bytes.len()
            ));
        }
        let name = match bytes {
            [] => return invalid("socket path is empty".into()),
            [0, name @ ..] => return Self::from_abstract_name(name),
            _ if bytes.contains(&0) => {
                return invalid(
                    "socket path has a NUL byte inside; only a leading one is allowed, \
                     for the abstract namespace"
                        .into(),
                );
            }
            _ => Name::Pathname(path.to_path_buf()),
        };
        Ok(Self { name })
    }

    /// Creates an address from a name in the abstract namespace, without the leading NUL byte.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a name over 107 bytes.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::SocketAddr;
    ///
    /// // It need not be text.
    /// let name = SocketAddr::from_abstract_name([0xff, 0, 7])?;
    /// assert_eq!(name.as_abstract_name(), Some(&[0xff, 0, 7][..]));
    /// assert!(SocketAddr::from_abstract_name([b'n'; 108]).is_err());
    /// # Ok(()) }
    /// ```
    pub fn from_abstract_name<N: AsRef<[u8]>>(name: N) -> io::Result<Self> {
        let name = name.as_ref();
        if name.len() >= CAPACITY {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "abstract name of {} bytes exceeds the limit of {} bytes (sun_path)",
                    name.len(),
                    CAPACITY - 1
                ),
            ));
        }
        Ok(Self { name: Name::Abstract(name.to_vec()) })
    }

    /// Returns the address of a socket that is bound to nothing.
    ///
    /// If a socket is bound to it, the kernel picks a free name in the abstract namespace, of five
    /// hexadecimal digits (autobind, see `unix(7)`). Port 0 of TCP works the same way.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let one = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let other = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// assert_ne!(one.local_socket_addr()?, other.local_socket_addr()?);
    /// # Ok(()) }
    /// ```
    pub fn unnamed() -> Self {
        Self { name: Name::Unnamed }
    }

    /// Returns the path, if the address is one.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::path::Path;
    /// use tokio_seqpacket::SocketAddr;
    ///
    /// let address = SocketAddr::from_path("/run/service.sock")?;
    /// assert_eq!(address.as_pathname().and_then(Path::parent), Some(Path::new("/run")));
    /// assert_eq!(SocketAddr::from_path("\0service")?.as_pathname(), None);
    /// # Ok(()) }
    /// ```
    pub fn as_pathname(&self) -> Option<&Path> {
        match &self.name {
            Name::Pathname(path) => Some(path),
            _ => None,
        }
    }

    /// Returns the name in the abstract namespace, without its leading NUL byte, if the address is one.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::SocketAddr;
    ///
    /// let address = SocketAddr::from_path("\0service")?;
    /// assert_eq!(address.as_abstract_name(), Some(&b"service"[..]));
    /// assert_eq!(SocketAddr::from_path("service")?.as_abstract_name(), None);
    /// # Ok(()) }
    /// ```
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        match &self.name {
            Name::Abstract(name) => Some(name),
            _ => None,
        }
    }

    /// Returns whether the socket is bound to nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// assert!(client.local_addr()?.is_unnamed());
    /// assert!(!client.peer_addr()?.is_unnamed());
    /// # Ok(()) }
    /// ```
    pub fn is_unnamed(&self) -> bool {
        matches!(self.name, Name::Unnamed)
    }

    /// Returns the address as tokio-seqpacket reports it: an abstract name with its leading NUL byte,
    /// an empty path for an unnamed socket.
    pub(crate) fn into_path_buf(self) -> PathBuf {
        match self.name {
            Name::Unnamed => PathBuf::new(),
            Name::Pathname(path) => path,
            Name::Abstract(name) => {
                let bytes = [&[0], name.as_slice()].concat();
                PathBuf::from(OsStr::from_bytes(&bytes))
            }
        }
    }

    /// Creates an address from what the kernel wrote.
    ///
    /// `len` is the length that it reported. That is 111 for a path that fills `sun_path`: the kernel
    /// counts a NUL byte that does not fit.
    pub(crate) fn from_raw(address: &libc::sockaddr_un, len: usize) -> io::Result<Self> {
        if len < offset_of!(libc::sockaddr_un, sun_path) {
            return Ok(Self::unnamed());
        }
        if address.sun_family != libc::AF_UNIX as libc::sa_family_t {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("address family {} is not AF_UNIX", address.sun_family),
            ));
        }
        let len = (len - offset_of!(libc::sockaddr_un, sun_path)).min(CAPACITY);
        let bytes = address.sun_path.map(|byte| byte as u8);
        let name = match &bytes[..len] {
            [] => Name::Unnamed,
            [0, name @ ..] => Name::Abstract(name.to_vec()),
            path => {
                let end = path.iter().position(|&byte| byte == 0).unwrap_or(len);
                Name::Pathname(PathBuf::from(OsStr::from_bytes(&path[..end])))
            }
        };
        Ok(Self { name })
    }

    /// Returns the path if it does not fit `sun_path`.
    pub(crate) fn long_path(&self) -> Option<&Path> {
        self.as_pathname().filter(|path| path.as_os_str().len() > CAPACITY)
    }

    pub(crate) fn to_rustix(&self) -> io::Result<SocketAddrUnix> {
        Ok(match &self.name {
            Name::Unnamed => SocketAddrUnix::new_unnamed(),
            Name::Pathname(path) => SocketAddrUnix::new(path)?,
            Name::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        })
    }
}

impl From<net::SocketAddr> for SocketAddr {
    fn from(address: net::SocketAddr) -> Self {
        let name = match (address.as_pathname(), address.as_abstract_name()) {
            (Some(path), _) => Name::Pathname(path.to_path_buf()),
            (_, Some(name)) => Name::Abstract(name.to_vec()),
            _ => Name::Unnamed,
        };
        Self { name }
    }
}

impl TryFrom<SocketAddr> for net::SocketAddr {
    type Error = io::Error;

    /// Fails with `InvalidInput` for a path of 108 bytes or more: std requires a terminating NUL byte.
    fn try_from(address: SocketAddr) -> io::Result<Self> {
        match &address.name {
            // This is std's unnamed address.
            Name::Unnamed => Self::from_pathname(""),
            Name::Pathname(path) => Self::from_pathname(path),
            Name::Abstract(name) => Self::from_abstract_name(name),
        }
    }
}

impl fmt::Debug for SocketAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Unnamed => f.write_str("(unnamed)"),
            Name::Pathname(path) => write!(f, "{path:?} (pathname)"),
            Name::Abstract(name) => write!(f, "\"{}\" (abstract)", name.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(bytes: &[u8]) -> libc::sockaddr_un {
        let mut address = libc::sockaddr_un {
            sun_family: libc::AF_UNIX as libc::sa_family_t,
            sun_path: [0; CAPACITY],
        };
        for (slot, byte) in address.sun_path.iter_mut().zip(bytes) {
            *slot = *byte as libc::c_char;
        }
        address
    }

    #[test]
    fn a_path_that_fills_sun_path_is_reported_with_length_111_and_read_whole() {
        let path = [b'p'; CAPACITY];
        let address = SocketAddr::from_raw(&raw(&path), 111).unwrap();
        assert_eq!(address.into_path_buf().as_os_str().as_bytes(), path);
    }

    #[test]
    fn limits_are_named() {
        for (long, limit) in [("p".repeat(4096), "4095"), (format!("\0{}", "n".repeat(108)), "107")]
        {
            let error = SocketAddr::from_path(long).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(limit), "{error}");
        }
        assert!(SocketAddr::from_path("").is_err());
        assert!(SocketAddr::from_path("a\0b").is_err());
        assert_eq!(SocketAddr::from_path("p".repeat(108)).unwrap().long_path(), None);
        let long = SocketAddr::from_path("p".repeat(109)).unwrap();
        assert!(long.long_path().is_some());
        assert_eq!(long.to_rustix().unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn abstract_names_keep_every_byte() {
        let address = SocketAddr::from_path("\0name\0").unwrap();
        assert_eq!(address.as_abstract_name(), Some(&b"name\0"[..]));
        assert_eq!(address.into_path_buf(), Path::new("\0name\0"));
        let address = SocketAddr::from_raw(&raw(b"\0name\0"), 2 + 6).unwrap();
        assert_eq!(address.as_abstract_name(), Some(&b"name\0"[..]));
    }

    #[test]
    fn addresses_go_to_std_and_back() {
        let addresses = [
            SocketAddr::unnamed(),
            SocketAddr::from_path("/run/socket").unwrap(),
            SocketAddr::from_path("p".repeat(107)).unwrap(),
            SocketAddr::from_abstract_name(b"name\0").unwrap(),
            SocketAddr::from_abstract_name("").unwrap(),
            SocketAddr::from_abstract_name([b'n'; 107]).unwrap(),
        ];
        for address in addresses {
            let std = net::SocketAddr::try_from(address.clone()).unwrap();
            assert_eq!(std.is_unnamed(), address.is_unnamed(), "{address:?}");
            assert_eq!(SocketAddr::from(std), address);
        }
        let full = SocketAddr::from_path("p".repeat(108)).unwrap();
        let refused = net::SocketAddr::try_from(full).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(SocketAddr::from_abstract_name([b'n'; 108]).is_err());
    }

    #[test]
    fn an_unbound_socket_is_unnamed() {
        assert!(SocketAddr::from_raw(&raw(b""), 2).unwrap().is_unnamed());
        assert!(SocketAddr::from_raw(&raw(b""), 0).unwrap().is_unnamed());
    }
}
