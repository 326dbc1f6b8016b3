//! Whether the cost of one rotation grows with the vault around it.

use lab::Result;
use serde_json::json;

use super::{
    ROUNDS,
    figures::Figure,
    measure::{BEGIN, Programs, median, uid},
};

const SIZES: [u32; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];

pub(super) fn measure(programs: &Programs) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut smallest = None;
    for size in SIZES {
        let home = programs.home()?;
        let imported = home.import((0..size).map(|number| {
            let title = format!("bench{number}");
            json!({"title": title, "uid": uid(&title), "login": title, "password": BEGIN,
                "custom_fields": {"cmdr:plugin": "noop"}})
        }))?;
        let one = uid("bench7");
        let each = median(ROUNDS, || home.run(&["rotate", &one]))?;
        let name = format!("import of {size} records");
        figures.push(match size {
            100_000 => Figure::at_most(name, imported.as_secs_f64(), "s", 10.0),
            _ => Figure::plain(name, imported.as_secs_f64(), "s"),
        });
        figures.push(Figure::plain(format!("noop rotation, {size} records in the vault"), each, "ms"));
        let smallest = *smallest.get_or_insert(each);
        if size >= 100_000 {
            figures.push(Figure::at_most(format!("its ratio to that of {}", SIZES[0]), each / smallest, "", 1.2));
        }
    }
    Ok(figures)
}
