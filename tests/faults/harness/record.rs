//! What is written about each fault: `target/faults/A01.json`, read by `cargo xtask faults`; in the everyday run
//! under `target/faults/sample`.

use crate::list::FAULTS;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Whether every case is to be tried, and not a sample.
pub(crate) fn is_full() -> bool {
    std::env::var("KINONE_FAULTS").is_ok_and(|size| size == "full")
}

/// All of `cases`, or in the everyday run about `count` of them, evenly spread, the first and the last among
/// them.
pub(crate) fn sample<T>(cases: impl IntoIterator<Item = T>, count: usize) -> Vec<T> {
    let cases: Vec<T> = cases.into_iter().collect();
    let (last, gaps) = (cases.len().saturating_sub(1), count.max(2) - 1);
    if is_full() || last < gaps {
        return cases;
    }
    let chosen: Vec<usize> = (0..=gaps).map(|k| k * last / gaps).collect();
    cases.into_iter().enumerate().filter(|(k, _)| chosen.contains(k)).map(|(_, case)| case).collect()
}

/// A fault being tried. A test that fails leaves no record.
pub(crate) struct Fault {
    id: &'static str,
    start: Instant,
    corrected: Option<(&'static str, String)>,
}

impl Fault {
    /// Begins the test of a fault of the list.
    pub(crate) fn new(id: &'static str) -> Fault {
        assert!(FAULTS.iter().any(|fault| fault.id == id), "no fault {id}");
        let _ = std::fs::remove_file(path(id));
        Fault { id, start: Instant::now(), corrected: None }
    }

    /// The list's verdict is not right for this program: this one is, because.
    pub(crate) fn verdict(mut self, verdict: &'static str, because: &str) -> Fault {
        self.corrected = Some((verdict, because.to_owned()));
        self
    }

    /// So many cases were tried in this way, and every one was survived.
    pub(crate) fn survived(self, cases: usize, how: &str) {
        assert!(cases > 0, "{}: nothing was tried", self.id);
        self.write("survived", cases, how, None);
    }

    /// It cannot be tried here, or not as it should: why, and what was checked instead in how many cases.
    pub(crate) fn not_tried(self, why: &str, cases: usize, instead: &str) {
        println!("{}: NOT TRIED HERE: {why}", self.id);
        self.write("not tried here", cases, instead, Some(why));
    }

    fn write(&self, outcome: &str, cases: usize, how: &str, why: Option<&str>) {
        let size = if is_full() { "full" } else { "sample" };
        let listed = FAULTS.iter().find(|fault| fault.id == self.id).unwrap();
        let record = json!({
            "id": self.id,
            "title": listed.title,
            "listed_verdict": listed.verdict,
            "outcome": outcome,
            "why": why,
            "verdict": self.corrected.as_ref().map(|(verdict, _)| verdict),
            "because": self.corrected.as_ref().map(|(_, because)| because),
            "sub_cases": cases,
            "size": size,
            "how": how,
            "seconds": self.start.elapsed().as_secs_f64(),
        });
        let path = path(self.id);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{record:#}\n")).unwrap();
    }
}

fn path(id: &str) -> PathBuf {
    let folder = if is_full() { "target/faults" } else { "target/faults/sample" };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(format!("{id}.json"))
}
