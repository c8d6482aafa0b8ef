//! [`UCred`]: user, group and process id of a peer.

use libc::{gid_t, pid_t, uid_t};

/// Holds the credentials of a process: its user id, group id and process id.
///
/// In ancillary data (`SCM_CREDENTIALS`) the kernel checks them against the sender. An unprivileged
/// process can only send its own ids. See `unix(7)`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::UCred;
///
/// let me = UCred::from_current_process();
/// assert_eq!(me.pid(), Some(std::process::id() as i32));
/// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// assert_eq!(UCred::from_socket_peer(&a)?.pid(), me.pid());
///
/// let mut other = UCred::new(1000, 1000, 1);
/// other.set_uid(me.uid());
/// other.set_gid(me.gid());
/// other.set_pid(std::process::id() as i32);
/// assert_eq!(other, me);
/// # Ok(()) }
/// ```
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub struct UCred {
    uid: uid_t,
    gid: gid_t,
    pid: pid_t,
}

impl UCred {
    /// Creates credentials with the given ids. A `pid` of 0 makes [`pid()`](Self::pid) return `None`.
    ///
    /// ```
    /// use tokio_seqpacket::UCred;
    ///
    /// let init = UCred::new(0, 0, 1);
    /// assert_eq!((init.uid(), init.gid(), init.pid()), (0, 0, Some(1)));
    /// assert_eq!(UCred::new(0, 0, 0).pid(), None);
    /// ```
    pub fn new(uid: uid_t, gid: gid_t, pid: pid_t) -> Self {
        Self { uid, gid, pid }
    }

    /// Returns the real user and group id of this process, and its process id.
    ///
    /// ```
    /// use tokio_seqpacket::UCred;
    ///
    /// let me = UCred::from_current_process();
    /// assert_eq!(me.pid(), Some(std::process::id() as i32));
    /// ```
    pub fn from_current_process() -> Self {
        Self {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            pid: rustix::process::getpid().as_raw_pid(),
        }
    }

    /// Returns the user id.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (socket, _peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// use tokio_seqpacket::UCred;
    ///
    /// let own = UCred::from_current_process().uid();
    /// // The same user, or root.
    /// let may_connect = [own, 0].contains(&socket.peer_cred()?.uid());
    /// # assert!(may_connect);
    /// # Ok(()) }
    /// ```
    pub fn uid(&self) -> uid_t {
        self.uid
    }

    /// Replaces the user id.
    ///
    /// ```
    /// # use tokio_seqpacket::UCred;
    /// let mut claimed = UCred::from_current_process();
    /// claimed.set_uid(65534);
    /// // To send this needs CAP_SETUID.
    /// assert_eq!((claimed.uid(), claimed.pid()), (65534, UCred::from_current_process().pid()));
    /// ```
    pub fn set_uid(&mut self, uid: uid_t) {
        self.uid = uid;
    }

    /// Returns the group id.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (socket, _peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// use tokio_seqpacket::UCred;
    ///
    /// // Both ends of a pair belong to this process.
    /// assert_eq!(socket.peer_cred()?.gid(), UCred::from_current_process().gid());
    /// # Ok(()) }
    /// ```
    pub fn gid(&self) -> gid_t {
        self.gid
    }

    /// Replaces the group id.
    ///
    /// ```
    /// # use tokio_seqpacket::UCred;
    /// let mut claimed = UCred::from_current_process();
    /// claimed.set_gid(65534);
    /// assert_eq!(claimed.gid(), 65534);
    /// ```
    pub fn set_gid(&mut self, gid: gid_t) {
        self.gid = gid;
    }

    /// Returns the process id, or `None` where the kernel reports 0.
    ///
    /// The process is in a process namespace that is not visible from here then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (socket, _peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let peer = socket.peer_cred()?;
    /// let pid = peer.pid().expect("it is in our process namespace");
    /// // Only a hint: another process can have been given this id.
    /// let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    /// # assert_eq!(program, std::env::current_exe()?);
    /// # Ok(()) }
    /// ```
    pub fn pid(&self) -> Option<pid_t> {
        (self.pid != 0).then_some(self.pid)
    }

    /// Replaces the process id. 0 stands for none.
    ///
    /// ```
    /// # use tokio_seqpacket::UCred;
    /// let mut credentials = UCred::new(1000, 1000, 1);
    /// credentials.set_pid(0);
    /// assert_eq!(credentials.pid(), None);
    /// ```
    pub fn set_pid(&mut self, pid: pid_t) {
        self.pid = pid;
    }

    pub(crate) fn from_raw(raw: libc::ucred) -> Self {
        Self::new(raw.uid, raw.gid, raw.pid)
    }

    pub(crate) const WIRE_LEN: usize = size_of::<libc::ucred>();

    /// Returns the bytes of a `struct ucred`.
    pub(crate) fn to_wire(self) -> [u8; Self::WIRE_LEN] {
        let mut bytes = [0; Self::WIRE_LEN];
        bytes[..4].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.uid.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.gid.to_ne_bytes());
        bytes
    }

    /// Creates credentials from the bytes of a `struct ucred`.
    pub(crate) fn from_wire(bytes: [u8; Self::WIRE_LEN]) -> Self {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        Self {
            pid: pid_t::from_ne_bytes(word(0)),
            uid: uid_t::from_ne_bytes(word(4)),
            gid: gid_t::from_ne_bytes(word(8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_format_is_struct_ucred() {
        assert_eq!(std::mem::offset_of!(libc::ucred, pid), 0);
        assert_eq!(std::mem::offset_of!(libc::ucred, uid), 4);
        assert_eq!(std::mem::offset_of!(libc::ucred, gid), 8);
        let credentials = UCred::new(1, 2, 3);
        assert_eq!(UCred::from_wire(credentials.to_wire()), credentials);
    }

    #[test]
    fn process_id_zero_is_none() {
        assert_eq!(UCred::new(1, 2, 0).pid(), None);
    }
}
