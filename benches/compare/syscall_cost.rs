//! What a trivial system call costs, and a seccomp filter that makes every call cost more.
//!
//! The filter stands for machines with expensive system calls: mitigations (KPTI, IBRS), audit, services under
//! `SystemCallFilter=`. It adds up numbers, beginning with an argument of the call: the kernel cannot cache its
//! verdict, and computes it for each call. Operations on a ring do not pass it, `io_uring_enter(2)` does.

#![allow(unsafe_code, reason = "a seccomp filter, and a call by way of libc")]

use std::io;
use std::time::Instant;

/// Nanoseconds of a trivial system call, `getppid(2)`: the best of many rounds. By way of libc, as most programs call.
/// An inline system call, as rustix makes it, can be cheaper: 116 ns where this is 165 ns (AMD EPYC VM, Linux 6.18).
pub fn trivial() -> f64 {
    const CALLS: u32 = 5_000;
    let round = |_| {
        let begin = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: the call takes no arguments, and never fails.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..30).map(round).fold(f64::INFINITY, f64::min)
}

/// Makes a trivial call of this thread, of the threads that it starts and of their child processes cost at least
/// this many nanoseconds, as far as 3 % allow. Returns what it costs then. There is no way back.
pub fn raise(wanted: f64) -> io::Result<f64> {
    const MOST: usize = 200;
    let mut now = trivial();
    for _ in 0..MOST {
        if now >= wanted * 0.97 {
            return Ok(now);
        }
        // An instruction takes some 0.25 ns, and each filter has a cost of its own. Half of what is missing at a
        // time, so that the last filter does not exceed it by much.
        let additions = ((wanted - now) * 2.0).clamp(20.0, 4_000.0);
        install(&program(additions as u32))?;
        now = trivial();
    }
    Err(io::Error::other(format!("{MOST} seccomp filters make a call cost {now:.0} ns only")))
}

/// Adds up numbers and allows the call.
fn program(additions: u32) -> Vec<libc::sock_filter> {
    let statement = |code: u32, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let argument = std::mem::offset_of!(libc::seccomp_data, args) as u32;
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, argument)];
    program.extend(
        (0..additions)
            .map(|number| statement(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, number | 1)),
    );
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    program
}

fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    // Without privileges, a filter asks for this.
    rustix::thread::set_no_new_privs(true)?;
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel copies the program during the call and writes to neither; `len` is the length of the slice
    // that `filter` points to, which the caller keeps until then.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
