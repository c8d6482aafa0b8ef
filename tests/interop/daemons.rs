//! Daemons of others with a seqpacket socket, and the tool at it: conmon's attach socket, and udev's control socket.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tokio_seqpacket::Backend;

use crate::harness::{Need, Test};
use crate::tool::tool;
use crate::{Place, Program, on_both, until_there, with};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests =
        with![Some("conmon"); conmon_attaches_the_tool, conmon_attaches_through_a_relay];
    let udev = on_both("udevadm_talks_to_the_tool", None, udevadm_talks_to_the_tool);
    tests.extend(udev.map(|test| test.needs([Need::Udev])));
    tests
}

/// In the place of an OCI runtime: the container is a shell that answers lines.
const RUNTIME: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        create) create=1 ;;
        --pid-file) shift; pid_file=$1 ;;
    esac
    shift
done
[ "$create" ] || exit 0
# A background job has no stdin but one that is passed to it.
exec 3<&0
sh -c 'while read -r line; do echo "got $line"; done; echo bye' <&3 3<&- &
echo $! > "$pid_file"
"#;

/// conmon with its container. Its attach socket is `attach` in the directory of the place.
fn conmon(place: &Place) -> Program {
    let runtime = place.file("runtime", RUNTIME.as_bytes());
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o700)).unwrap();
    let bundle = place.path.parent().unwrap();
    let mut command = Command::new("conmon");
    command.args(["--sync", "--full-attach", "--stdin", "--cid=id", "--cuuid=uuid", "--name=name"]);
    command.arg("--runtime").arg(runtime).arg("--bundle").arg(bundle);
    command.arg("--container-pidfile").arg(bundle.join("pid"));
    command.arg(format!("--log-path=k8s-file:{}", bundle.join("log").display()));
    let mut conmon = Program::start(&mut command);
    drop(conmon.stdin());
    until_there(&attach(place));
    conmon
}

fn attach(place: &Place) -> std::path::PathBuf {
    place.path.with_file_name("attach")
}

/// What is typed, and what conmon answers: 2 before what the container wrote to its stdout.
const TYPED: &[u8] = b"one\ntwo\n";
const ANSWERED: &str = "\x02got one\n\x02got two\n\x02bye\n";

/// Talks to the container until it ends with its stdin, which conmon closes at the end of ours.
fn talks(backend: Backend, to: &Path) {
    use std::io::Write;
    let mut client = Program::start(tool(backend, &["connect", "--raw"]).arg(to));
    client.stdin().write_all(TYPED).unwrap();
    let output = String::from_utf8(client.succeeds()).unwrap();
    // The container's shell may write several lines before conmon reads them.
    assert_eq!(output.replace('\x02', ""), ANSWERED.replace('\x02', ""));
    assert!(output.starts_with('\x02'), "{output:?}");
}

fn conmon_attaches_the_tool(backend: Backend) {
    let place = Place::new();
    let conmon = conmon(&place);
    talks(backend, &attach(&place));
    conmon.succeeds();
}

fn conmon_attaches_through_a_relay(backend: Backend) {
    let place = Place::new();
    let conmon = conmon(&place);
    let mut relay = tool(backend, &["relay", "--once"]);
    let relay = Program::start(relay.arg(&place.path).arg(attach(&place)));
    until_there(&place.path);
    talks(backend, &place.path);
    conmon.succeeds();
    let shown = String::from_utf8(relay.succeeds()).unwrap();
    let lines = [r#"> 8 bytes "one\ntwo\n""#, "> end of stream", r#"< "#, "< end of stream"];
    for line in lines {
        assert!(shown.contains(&format!(" 1 {line}")), "{shown}");
    }
}

/// udevd with a `/run` of its own, and a relay in the place of its socket. Then the tool is the daemon.
const UDEV: &str = r#"
set -eu
mount -t tmpfs none /run
mkdir /run/udev
cd /run/udev
there() { # path
    n=0
    until [ -S "$1" ]; do
        n=$((n + 1))
        [ $n -lt 500 ] || { echo "no $1" >&2; exit 1; }
        sleep 0.02
    done
}
for udevd in /usr/lib/systemd/systemd-udevd /lib/systemd/systemd-udevd; do
    [ -x $udevd ] && break
done
$udevd --resolve-names=never 2> udevd.log & udevd=$!
trap 'kill $udevd 2> /dev/null || true' EXIT
there control
mv control real
"$@" relay --once control real & relay=$!
there control
udevadm control --ping --timeout=10
wait $relay
echo ping: answered
"$@" listen --hex --count=2 control & tool=$!
there control
udevadm control --log-level=info --timeout=10
wait $tool
"#;

fn udevadm_talks_to_the_tool(backend: Backend) {
    let tool = tool(backend, &[]);
    // Without the network's namespace, udevd would get events of this machine's devices.
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
    unshare.args(["sh", "-c", UDEV, "sh"]).arg(tool.get_program()).args(tool.get_args());
    let shown = String::from_utf8(Program::start(&mut unshare).succeeds()).unwrap();
    let (relayed, listened) = shown.split_once("ping: answered\n").expect("that line");
    // A version, a magic number, and the kind of the message.
    assert!(relayed.contains(r#" 1 > 280 bytes "udev-"#), "{relayed}");
    assert!(relayed.contains(r"\xea\x1d\xad\xde\x07"), "{relayed}");
    assert!(relayed.contains(" 1 < end of stream\n"), "{relayed}");
    // The message, and one that says that it was the last.
    let message = listened.lines().next().unwrap();
    assert_eq!(message.len(), 2 * 280, "{message}");
    assert!(message.starts_with("756465762d"), "{message}");
    assert!(message.contains("ea1dadde01"), "{message}");
}
