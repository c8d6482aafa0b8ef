//! What the figures depend on.

use std::fs;

use serde::Serialize;

#[derive(Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub governor: String,
    pub memory: String,
    pub io_uring: String,
    pub rustc: String,
    /// Nanoseconds of a trivial system call, and of the same with the filter of `--syscall-cost`.
    pub call: f64,
    pub raised_call: Option<f64>,
    /// Name and state, of those that concern this processor.
    pub mitigations: Vec<(String, String)>,
}

impl Machine {
    pub fn this(call: f64, raised_call: Option<f64>) -> Self {
        let name = rustix::system::uname();
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            kernel: format!(
                "{} {}",
                name.sysname().to_string_lossy(),
                name.release().to_string_lossy()
            ),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .unwrap_or_else(|| "not shown (a virtual machine?)".into()),
            memory: field("/proc/meminfo", "MemTotal").unwrap_or_else(unknown),
            io_uring: tokio_seqpacket::probe().to_string(),
            rustc: rustc().unwrap_or_else(unknown),
            call,
            raised_call,
            mitigations: mitigations(),
        }
    }

    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mitigations: Vec<_> =
            self.mitigations.iter().map(|(name, state)| format!("{name}: {state}")).collect();
        let mitigations = match mitigations.is_empty() {
            true => "none (the processor is not affected, or the kernel does not say)".into(),
            false => mitigations.join("; "),
        };
        let mut call = format!("{:.0} ns for a trivial one", self.call);
        if let Some(raised) = self.raised_call {
            call += &format!("; {raised:.0} ns with the filter of --syscall-cost");
        }
        vec![
            ("CPU", format!("{}, {} cores", self.cpu, self.cores)),
            ("memory", self.memory.clone()),
            ("kernel", self.kernel.clone()),
            ("io_uring", self.io_uring.clone()),
            ("governor", self.governor.clone()),
            ("mitigations", mitigations),
            ("system call", call),
            ("compiler", self.rustc.clone()),
        ]
    }
}

fn unknown() -> String {
    "unknown".into()
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn rustc() -> Option<String> {
    let output = std::process::Command::new("rustc").arg("-V").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn mitigations() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        let Some(state) = entry.path().to_str().and_then(read) else { continue };
        if state != "Not affected" {
            all.push((entry.file_name().to_string_lossy().into_owned(), state));
        }
    }
    all.sort();
    all
}
