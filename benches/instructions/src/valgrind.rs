//! Runs of this program under valgrind.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::{env, fs, thread};

/// What callgrind counted in a whole run.
pub struct Profile {
    pub instructions: u64,
    pub allocations: u64,
}

/// Runs this program under callgrind.
pub fn profile(arguments: &[&str]) -> Profile {
    let name = arguments.join(".");
    let profile = env::current_exe()
        .unwrap()
        .with_file_name(format!("{name}.callgrind"));
    let output_file = format!("--callgrind-out-file={}", profile.display());
    run(
        &["--tool=callgrind", "--compress-strings=no", &output_file],
        arguments,
    );

    let profile = fs::read_to_string(profile).unwrap();
    let number = |line: &str, key| {
        line.strip_prefix(key)?
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    };
    let calls = profile.lines().zip(profile.lines().skip(1));
    Profile {
        instructions: profile
            .lines()
            .find_map(|line| number(line, "summary: "))
            .unwrap(),
        allocations: calls
            .filter(|(callee, _)| ["cfn=malloc", "cfn=calloc", "cfn=realloc"].contains(callee))
            .filter_map(|(_, calls)| number(calls, "calls="))
            .sum(),
    }
}

/// Runs this program under DHAT, and returns how many bytes of heap it holds when it exits.
pub fn bytes_held(arguments: &[&str]) -> u64 {
    let output = run(&["--tool=dhat", "--dhat-out-file=/dev/null"], arguments);
    let messages = String::from_utf8_lossy(&output.stderr);
    let (_, held) = messages.split_once("At t-end:").unwrap();
    let bytes = held.trim_start().split(' ').next().unwrap();
    bytes.replace(',', "").parse().unwrap()
}

fn run(options: &[&str], arguments: &[&str]) -> Output {
    let program = env::current_exe().unwrap();
    let output = valgrind()
        .args(options)
        // The path and the arguments are on the stack. Their length shifts it, and a copy's cost
        // depends on its alignment, so the length is the same for every case and in every folder.
        .current_dir(program.parent().unwrap())
        .arg(Path::new(".").join(program.file_name().unwrap()))
        .args(arguments.iter().map(|argument| format!("{argument:50}")))
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{messages}");
    output
}

/// Has no environment, because that is on the stack, too: see [`run`].
fn valgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.env_clear();
    valgrind
}

/// On Debian, installs valgrind if it is missing.
pub fn install() {
    if valgrind().arg("--version").output().is_err() {
        let install = "sudo=$(command -v sudo); \
            $sudo apt-get update && $sudo apt-get install --yes valgrind";
        let status = Command::new("sh").args(["-c", install]).status().unwrap();
        assert!(
            status.success(),
            "valgrind is missing and could not be installed"
        );
    }
}

/// Does `work` for each item on all cores, and `beside` at the same time. This changes no count.
pub fn in_parallel<T: Sync, U: Send, V: Send>(
    items: &[T],
    work: impl Fn(&T) -> U + Sync,
    beside: impl FnOnce() -> V + Send,
) -> (Vec<U>, V) {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let items = Mutex::new(items.iter().enumerate());
    let next = || items.lock().unwrap().next();
    thread::scope(|scope| {
        let beside = scope.spawn(beside);
        let worker = || {
            let mut done = vec![];
            while let Some((number, item)) = next() {
                done.push((number, work(item)));
            }
            done
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let mut done: Vec<_> = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect();
        done.sort_by_key(|&(number, _)| number);
        let done = done.into_iter().map(|(_, done)| done).collect();
        (done, beside.join().unwrap())
    })
}
