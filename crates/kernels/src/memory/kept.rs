//! What a kernel made of values that stay as they are, kept beside them to be used again.

use super::Buffer;
use std::fmt;
use std::sync::OnceLock;

/// Room beside some values for what is made of them, such as filters packed for a product. It belongs to the values:
/// who changes them takes a new one. There is room for two forms: a product may come in one or the other, as its other
/// operand has many zeros or few.
#[derive(Default)]
pub struct Kept([OnceLock<(Form, Buffer)>; 2]);

/// What something was made for, all that decides its layout: the same values are of use in one form alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) what: &'static str,
    pub(crate) extents: [usize; 6],
}

impl Kept {
    /// What `make` makes in this form, made the first time alone; `None` where two others are kept.
    ///
    /// `make` may set all threads to work, so it is not to be called where they are at work already: one that waits
    /// here for another's `make` would keep them from it.
    pub(crate) fn get(&self, form: Form, make: impl FnOnce() -> Buffer) -> Option<&[f32]> {
        let mut make = Some(make);
        self.0.iter().find_map(|room| {
            let mut once = || make.take().unwrap_or_else(|| unreachable!("what is made has its form"));
            let (kept, values) = room.get_or_init(|| (form, once()()));
            (*kept == form).then_some(&values[..])
        })
    }
}

/// An empty room: the same values lie elsewhere, and what is made of them is theirs to keep.
impl Clone for Kept {
    fn clone(&self) -> Kept {
        Kept::default()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().filter_map(|room| room.get()).map(|(form, _)| form)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Kept};
    use crate::memory::Buffer;

    #[test]
    fn a_thing_is_made_once_and_serves_its_form_alone() {
        let kept = Kept::default();
        let form = Form { what: "rows", extents: [2, 3, 3, 4, 0, 0] };
        assert_eq!(kept.get(form, || Buffer::copy_of(&[1.0])), Some(&[1.0][..]));
        assert_eq!(kept.get(form, || unreachable!("made already")), Some(&[1.0][..]));
        let second = Form { extents: [2, 3, 3, 6, 0, 0], ..form };
        assert_eq!(kept.get(second, || Buffer::copy_of(&[3.0])), Some(&[3.0][..]));
        let other = Form { extents: [2, 3, 3, 8, 0, 0], ..form };
        assert_eq!(kept.get(other, || unreachable!("no room")), None);
        assert_eq!(kept.get(form, || unreachable!("made already")), Some(&[1.0][..]));
        assert_eq!(kept.get(second, || unreachable!("made already")), Some(&[3.0][..]));
        let copy = kept.clone();
        assert_eq!(copy.get(other, || Buffer::copy_of(&[2.0])), Some(&[2.0][..]), "a copy is another's");
    }
}
