//! The description of a rotator, made from its types.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use turnlock_protocol::Describe;

use crate::rotator::Rotator;

/// What this rotator says of itself.
pub(crate) fn describe<R: Rotator>() -> Describe {
    Describe {
        plugin: R::PLUGIN.to_owned(),
        version: R::VERSION.to_owned(),
        summary: R::SUMMARY.to_owned(),
        schema: schema::<R>(),
        default_port: R::DEFAULT_PORT,
        ports: R::PORTS.to_vec(),
        url_schemes: R::URL_SCHEMES.iter().map(|scheme| (*scheme).to_owned()).collect(),
        environment: R::ENVIRONMENT.iter().map(|name| (*name).to_owned()).collect(),
        traits: R::traits(None),
    }
}

/// One JSON Schema of everything a record may say to this plugin, each
/// property marked with where it goes.
fn schema<R: Rotator>() -> Value {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<R::Account>().to_value();
    if let Value::Object(root) = &mut schema {
        let properties = root.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(properties) = properties {
            for property in properties.values_mut().filter_map(Value::as_object_mut) {
                property.entry("x-turnlock").or_insert_with(|| json!("account"));
            }
            properties.insert(
                "timeout".to_owned(),
                json!({
                    "description": "Seconds one operation may take, connecting included; 30 unless told.",
                    "type": "integer",
                    "minimum": 1,
                    "x-turnlock": "account"
                }),
            );
            for field in R::CREDENTIAL {
                let mut property = json!({
                    "description": field.description,
                    "type": "string",
                    "writeOnly": !R::SHOWN.contains(&field.name),
                    "x-turnlock": field.mark
                });
                if let (true, Value::Object(property)) = (field.name != field.option, &mut property) {
                    property.insert("x-turnlock-field".to_owned(), json!(field.name));
                }
                properties.insert(field.option.to_owned(), property);
            }
        }
    }
    schema
}
