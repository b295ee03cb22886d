//! Too little memory, too few threads, too few open files.

use crate::a_kills::RESUME;
use crate::harness::strace::{self, fail};
use crate::harness::{
    Ended, Fault, Place, Program, Whole, as_user, kinone, not_root, preload, sample, small,
};
use std::fs;
use std::os::unix::process::ExitStatusExt;

#[test]
fn fault_b10_small_address_space() {
    let fault = Fault::new("B10");
    // Steps that need some dozens of MiB, with a checkpoint after each.
    let more = ["--image-size=128", "--batch-size=32", "--epochs=1", "--run-dir=run", "--checkpoint-every=1"];
    let (mut refused, mut done) = (0, 0);
    let limits = sample((8..=40).map(|k| 5 * k), 7);
    for limit in &limits {
        let place = Place::new();
        let mut command = place.tool("prlimit");
        command.arg(format!("--as={}", limit << 20)).arg("--core=unlimited").arg(kinone()).args(small(&more));
        let ended = Ended::of(&mut command);
        if ended.status.success() {
            done += 1;
            continue;
        }
        refused += 1;
        // Code 3 where not even the images fit.
        let code = ended.code().filter(|code| *code == 3);
        let ended = ended.failed(code.unwrap_or(1), &["memory"]);
        assert!(ended.stderr.contains("MiB") || ended.stderr.contains("bytes"), "{ended}");
        assert_eq!(place.links(), 0, "it failed after its first step, under {limit} MiB: {ended}");
    }
    assert!(refused > 0 && done > 0, "{refused} refused, {done} done");
    fault.survived(
        limits.len(),
        "RLIMIT_AS of 40 to 200 MiB for a run that needs some dozens beside the program itself: it ends before its first step with one line \
         that gives the estimate in MiB, or it runs to its end; never in between",
    );
}

#[test]
fn fault_b11_killed_for_want_of_memory() {
    let fault = Fault::new("B11");
    let mut cases = 0;
    for moment in sample(1..20, 2) {
        let place = Place::new();
        let mut program = place.start(&small(&["--run-dir=run", "--checkpoint-every=3"]));
        program.wait_until(|| place.links() > moment);
        program.signal("KILL");
        if program.end().was_killed() {
            if !place.store().steps().is_empty() {
                place.every_checkpoint_is_sound();
                place.chain_leads_to_the_newest();
            }
            place.resumes_to(Whole::get());
            cases += 1;
        }
    }
    assert!(cases > 0, "every run had ended before it was killed");
    fault.survived(
        cases,
        "SIGKILL, which is what the system sends then, in the middle of an epoch, at moments spread over a run; resumed \
         to equal bits",
    );
}

#[test]
fn fault_b12_failing_allocations() {
    let fault = Fault::new("B12").verdict(
        "E or R",
        "Rust's standard library ends the process when a small allocation fails, and offers a program no other way; \
         large ones, the buffers of kernels and what files claim to hold, are errors of one line. Nothing is lost \
         either way",
    );
    let library = match preload::library() {
        Ok(library) => library,
        Err(why) => return fault.not_tried(why, 0, ""),
    };
    let settings = "model = 'resnet10w8'\nbatch_size = 8\nepochs = 2\n";
    // Every parser: configuration, table and images, checkpoint, chain, weights.
    let ready = Place::after_step(18);
    ready.run(&["synth", "--out-dir=data", "--images=100", "--size=32"]).succeeded();
    ready.write("kinone.toml", settings.as_bytes());
    let image = fs::read_dir(ready.path("data/images")).unwrap().next().unwrap().unwrap().path();
    let image = format!("--image-path=data/images/{}", image.file_name().unwrap().to_str().unwrap());
    let train = ["train", "--config=kinone.toml", "--data-dir=data", "--image-size=32", "--run-dir=new"];
    let commands: [&[&str]; 4] =
        [&RESUME, &train, &["predict", "--run-dir=run", &image], &["verify", "--run-dir=run"]];
    let (mut cases, mut aborted) = (0, 0);
    for arguments in commands {
        // The first eight are made before the program begins, by the C library.
        for allocation in sample((0..200).map(|k| 9 + k * k * k / 40), 3) {
            let place = ready.copy();
            let mut command = place.command(arguments);
            command.env("LD_PRELOAD", library).env("FAULT_ALLOC", allocation.to_string());
            let ended = Program::start(&mut command).end_in_any_way();
            assert!(!ended.stderr.contains("panicked"), "{ended}");
            aborted += usize::from(ended.status.signal() == Some(6));
            let is_clean = ended.status.success() || ended.stderr.starts_with("kinone: ");
            assert!(is_clean || ended.stderr.starts_with("memory allocation of"), "{allocation}: {ended}");
            place.every_checkpoint_is_sound();
            place.chain_leads_to_the_newest();
            if arguments == RESUME {
                place.resumes_to(Whole::get());
            }
            cases += 1;
        }
    }
    fault.survived(
        cases,
        &format!(
            "a preloaded allocator fails the n-th request, n from 9 to 200000, of train, train --resume, predict and \
             verify: {aborted} ended by the standard library's abort, none by a panic; checkpoints and chain intact, \
             resumed to equal bits"
        ),
    );
}

#[test]
fn fault_b13_no_more_threads() {
    let fault = Fault::new("B13");
    if let Some(why) = not_root() {
        return fault.not_tried(why, 0, "");
    }
    // Each of these cases has a user of its own, whose processes nobody else adds to.
    let try_as = |user: u32, limit: usize| -> (Place, Ended) {
        let place = Place::new();
        let mut command = place.tool("prlimit");
        command.arg(format!("--nproc={limit}"));
        command.args(as_user(&place, user)).args(small(&["--run-dir=run", "--threads=4"]));
        let ended = Ended::of(&mut command);
        (place, ended)
    };
    let limits = [1, 2, 3];
    for (k, limit) in limits.into_iter().enumerate() {
        let (place, ended) = try_as(61_230 + k as u32, limit);
        let summary: serde_json::Value = serde_json::from_str(&ended.succeeded().stdout).unwrap();
        assert_eq!(summary["threads"], limit, "{summary}");
        Whole::get().is_equal(&place, &summary);
    }
    let mut cases = limits.len();
    if strace::no_strace().is_none() {
        // The first threads are made, a later one is not.
        for nth in [1, 3] {
            let place = Place::new();
            let call = strace::Call { name: "clone3".into(), nth, text: String::new() };
            let program = [&[kinone()], &small(&["--run-dir=run", "--threads=4"])[..]].concat();
            let (ended, _) = strace::run(&place, &program, &fail(&call, "EAGAIN"));
            let summary: serde_json::Value = serde_json::from_str(&ended.succeeded().stdout).unwrap();
            assert_eq!(summary["threads"], nth);
            Whole::get().is_equal(&place, &summary);
            cases += 1;
        }
    }
    fault.survived(
        cases,
        "RLIMIT_NPROC of 1, 2, 3 as a user of its own, and EAGAIN injected into the making of the first and \
         the third thread, for a run that asks for four: fewer threads, equal bits",
    );
}

#[test]
fn fault_b14_few_open_files() {
    let fault = Fault::new("B14");
    let place = Place::new();
    place.run(&["synth", "--out-dir=data", "--images=100", "--size=32"]).succeeded();
    let run = |limit: Option<usize>| -> (Place, Ended) {
        let place = place.copy();
        let limit = limit.map_or("--nofile=1024".to_owned(), |limit| format!("--nofile={limit}"));
        let mut command = place.tool("prlimit");
        command.arg(limit).arg(kinone()).args(["train", "--json", "--data-dir=data", "--model=resnet10w8"]);
        command.args(["--image-size=32", "--batch-size=8", "--epochs=1", "--threads=7", "--run-dir=run"]);
        let ended = Ended::of(&mut command);
        (place, ended)
    };
    let (usual, ended) = run(None);
    ended.succeeded();
    let limits = sample((5..=32).rev(), 6);
    let mut refused = 0;
    for limit in &limits {
        let (place, ended) = run(Some(*limit));
        if ended.status.success() {
            assert_eq!(place.read("run/chain.jsonl"), usual.read("run/chain.jsonl"), "{limit}");
        } else {
            refused += 1;
            let code = ended.code().filter(|code| [3, 5].contains(code));
            ended.failed(code.unwrap_or(5), &["Too many open files"]);
        }
    }
    assert!(run(Some(32)).1.status.success(), "32 are enough");
    fault.survived(
        limits.len(),
        &format!(
            "RLIMIT_NOFILE of 32 down to 5 for a run on 100 image files with seven threads: equal chains, and \
             {refused} refusals of one line where even the first files cannot be opened"
        ),
    );
}
