//! The least IAM policy under which the gateway works: one statement for serving, one for the administrator's commands,
//! so that the gateway's own role need not be able to list sessions or make tables.

use serde_json::{Value, json};

/// What serving takes: the five verbs on rows, and a look at the table's key when the gateway starts.
const SERVE: [&str; 5] = [
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
    "dynamodb:DescribeTable",
];

/// What the commands `table` and `session` take besides.
const ADMINISTER: [&str; 4] =
    ["dynamodb:CreateTable", "dynamodb:DescribeTimeToLive", "dynamodb:UpdateTimeToLive", "dynamodb:Scan"];

/// The policy for one table, as IAM takes it. Without a region it is for the table of that name in every region.
pub fn for_table(table: &str, region: Option<&str>) -> Value {
    let resource = resource(table, region);
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Sid": "SessiongateServe", "Effect": "Allow", "Action": SERVE, "Resource": resource },
            { "Sid": "SessiongateAdminister", "Effect": "Allow", "Action": ADMINISTER, "Resource": resource },
        ],
    })
}

fn resource(table: &str, region: Option<&str>) -> String {
    // DynamoDB takes a table's whole ARN in place of its name: how tables of other accounts are named.
    if table.starts_with("arn:") {
        return table.to_owned();
    }
    let partition = match region {
        Some(region) if region.starts_with("cn-") => "aws-cn",
        Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
        Some(_) | None => "aws",
    };
    format!("arn:{partition}:dynamodb:{}:*:table/{table}", region.unwrap_or("*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_can_neither_list_sessions_nor_change_tables() {
        let policy = for_table("sessions", Some("eu-central-1"));
        let serve = &policy["Statement"][0];
        assert_eq!(serve["Resource"], "arn:aws:dynamodb:eu-central-1:*:table/sessions");
        for action in serve["Action"].as_array().unwrap() {
            assert!(!ADMINISTER.contains(&action.as_str().unwrap()));
        }
    }

    #[test]
    fn resources_follow_the_partition_and_the_arn() {
        assert_eq!(resource("s", Some("cn-north-1")), "arn:aws-cn:dynamodb:cn-north-1:*:table/s");
        assert_eq!(resource("s", Some("us-gov-west-1")), "arn:aws-us-gov:dynamodb:us-gov-west-1:*:table/s");
        assert_eq!(resource("s", None), "arn:aws:dynamodb:*:*:table/s");
        let arn = "arn:aws:dynamodb:us-east-1:123456789012:table/s";
        assert_eq!(resource(arn, Some("eu-west-1")), arn);
    }
}
