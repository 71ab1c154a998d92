// SPDX-License-Identifier: MIT

#include "ferrybus/tools/state/state_text.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ferrybus::state_tool {
namespace {

using Row = std::vector<std::string>;

struct Column {
  const char* key;  // in each element
  const char* title;
};

// The value of a key, or null.
const Json& At(const Json& object, const char* key) {
  static const Json* const null = new Json();
  if (!object.is_object()) return *null;
  const auto found = object.find(key);
  return found == object.end() ? *null : *found;
}

std::string Text(const Json& object, const char* key) {
  return ValueText(At(object, key));
}

bool IsTrue(const Json& object, const char* key) {
  const Json& value = At(object, key);
  return value.is_boolean() && value.get<bool>();
}

uint64_t Number(const Json& object, const char* key) {
  const Json& value = At(object, key);
  return value.is_number_unsigned() ? value.get<uint64_t>() : 0;
}

std::string Counted(uint64_t count, const char* one, const char* many) {
  return absl::StrCat(count, " ", count == 1 ? one : many);
}

// "storage: phase ready, ..."; "unknown: 9 bytes 6f70..."; "none".
std::string DeviceText(const Json& device) {
  const std::string format = Text(device, "format");
  if (format == "unknown") {
    if (Number(device, "bytes") == 0) return "none";
    return absl::StrCat(
        format, ": ", Text(device, "bytes"), " bytes ", Text(device, "hex"),
        At(device, "problem").is_null() ? std::string()
                                        : "; " + Text(device, "problem"));
  }
  std::vector<std::string> parts;
  for (const auto& [key, value] : device.items()) {
    if (key == "format" || key == "bytes") continue;
    parts.push_back(absl::StrCat(key, " ", ValueText(value)));
  }
  return absl::StrCat(format, ": ", absl::StrJoin(parts, ", "));
}

// A heading with the count, the elements as a table, and how many more.
std::string ListText(const Json& list, const std::string& indent,
                     const char* title, const std::vector<Column>& columns) {
  if (Number(list, "count") == 0) return std::string();
  std::vector<Row> rows(1);
  for (const Column& column : columns) rows[0].push_back(column.title);
  for (const Json& element : At(list, "listed")) {
    Row& row = rows.emplace_back();
    for (const Column& column : columns) {
      row.push_back(Text(element, column.key));
    }
  }
  std::string text = absl::StrCat(indent, title, " (", Number(list, "count"),
                                  ")\n", TableText(rows, indent + "  "));
  if (Number(list, "rest") != 0) {
    absl::StrAppend(&text, indent, "  and ", Number(list, "rest"),
                    " more; --all shows them\n");
  }
  return text;
}

std::string FrameText(const Json& frame) {
  std::string text;
  const auto line = [&text](const char* name, const std::string& value) {
    absl::StrAppend(&text, "  ", name,
                    std::string(12 - std::min<size_t>(11, strlen(name)), ' '),
                    value, "\n");
  };
  text += "file\n";
  if (!IsTrue(frame, "accepted")) line("REFUSED", Text(frame, "problem"));
  line("size", absl::StrCat(Text(frame, "file_bytes"), " bytes"));
  if (At(frame, "magic_ok").is_null()) {
    line("header", "none: shorter than 64 bytes");
    return text;
  }
  if (!IsTrue(frame, "magic_ok")) line("magic", "wrong: no saved state");
  line("frame",
       absl::StrCat(
           "version ", Text(frame, "frame_version"), ", ",
           Counted(Number(frame, "section_count"), "section", "sections"),
           ", says it has ", Text(frame, "total_bytes"), " bytes"));
  line("written by", absl::StrCat("\"", Text(frame, "producer"), "\""));
  line(
      "checksums",
      absl::StrCat("header ", IsTrue(frame, "header_crc_ok") ? "good" : "BAD",
                   ", table ", IsTrue(frame, "table_crc_ok") ? "good" : "BAD"));
  return text;
}

std::string ConnectionText(const Json& connection) {
  std::string text = "connection\n";
  if (connection.is_null()) return text + "  none in this file\n";
  if (const Json& problem = At(connection, "problem"); !problem.is_null()) {
    return absl::StrCat(text, "  ", ValueText(problem), "\n");
  }
  const Json& contact = At(connection, "contact");
  absl::StrAppend(&text, "  ", Text(connection, "phase"), ", version ",
                  Text(contact, "version"),
                  IsTrue(contact, "supported") ? "" : " (not supported)",
                  ", features ", Text(contact, "features"),
                  At(contact, "feature_names").empty()
                      ? std::string()
                      : absl::StrCat(" (", Text(contact, "feature_names"), ")"),
                  ", messages to VP ", Text(contact, "target_message_vp"),
                  "\n");
  absl::StrAppend(&text, "  monitor pages ", Text(contact, "monitor_pages"),
                  "; client id ", Text(contact, "client_id"), "\n");
  absl::StrAppend(
      &text, "  offers ", IsTrue(connection, "offers_requested") ? "" : "not ",
      "requested", IsTrue(connection, "paused") ? "; paused by the guest" : "",
      At(connection, "pending_modify").is_null()
          ? ""
          : "; new monitor pages not answered yet",
      "\n");
  if (Text(connection, "phase") == "resetting") {
    absl::StrAppend(
        &text, "  after the reset: ", Text(connection, "after_reset"), "\n");
  }
  text += ListText(At(connection, "offers"), "  ", "offers",
                   {{"offer", "offer"},
                    {"channel", "channel"},
                    {"state", "state"},
                    {"offered", "offered"},
                    {"device", "device"},
                    {"sub_channel_index", "sub"},
                    {"interface_instance", "instance"}});
  text += ListText(At(connection, "gpadls"), "  ", "GPADLs",
                   {{"gpadl", "GPADL"},
                    {"channel", "channel"},
                    {"state", "state"},
                    {"byte_count", "bytes"},
                    {"byte_offset", "offset"},
                    {"pages", "pages"}});
  text += ListText(At(connection, "outgoing"), "  ",
                   "messages that the guest has not taken",
                   {{"message", "message"},
                    {"channel", "channel"},
                    {"id", "id"},
                    {"status", "status"}});
  text += ListText(At(connection, "tl_connects"), "  ",
                   "socket connects not answered",
                   {{"service", "service"}, {"endpoint", "endpoint"}});
  return text;
}

std::string RingText(const Json& ring) {
  return absl::StrCat("own ", Text(ring, "own_index"), ", peer ",
                      Text(ring, "peer_index"), " of ",
                      Text(ring, "data_bytes"), " bytes");
}

std::string ChannelText(const Json& channel) {
  std::string text = absl::StrCat("channel ", Text(channel, "channel"));
  if (const Json& problem = At(channel, "problem"); !problem.is_null()) {
    return absl::StrCat(text, "\n  ", ValueText(problem), "\n");
  }
  absl::StrAppend(&text, ": ",
                  At(channel, "device").is_null()
                      ? "no offer with this number"
                      : absl::StrCat(Text(channel, "device"), ", instance ",
                                     Text(channel, "interface_instance")),
                  "\n");
  if (!Text(channel, "fault").empty()) {
    absl::StrAppend(&text, "  FAULTED: ", Text(channel, "fault"), "\n");
  }
  absl::StrAppend(&text,
                  "  incoming ring: ", RingText(At(channel, "incoming_ring")),
                  "\n  outgoing ring: ", RingText(At(channel, "outgoing_ring")),
                  "\n  device state:  ", Text(channel, "device_state"), "\n");
  const Column transaction = {"transaction_id", "transaction"};
  const Column type = {"type", "type"};
  const Column payload = {"payload", "payload"};
  const Column external = {"external_bytes", "external"};
  text += ListText(At(channel, "incoming"), "  ",
                   "incoming, received and not completed",
                   {transaction,
                    type,
                    payload,
                    external,
                    {"completion_requested", "answer"},
                    {"waiting", "waiting"},
                    {"device", "device"}});
  text += ListText(At(channel, "queued"), "  ",
                   "queued, waiting for room in the outgoing ring",
                   {transaction, type, payload, external, {"flags", "flags"}});
  text += ListText(At(channel, "awaiting"), "  ",
                   "awaiting completion by the guest",
                   {transaction,
                    {"tag", "tag"},
                    {"cancelled", "cancelled"},
                    {"device", "device"}});
  return text;
}

// "channel 1, byte 128: "
std::string PlaceText(const Json& finding) {
  const std::string section = Text(finding, "section");
  if (section.empty()) return std::string();
  return absl::StrCat(section, " ", Text(finding, "instance"),
                      Number(finding, "offset") == 0
                          ? std::string()
                          : ", body at byte " + Text(finding, "offset"),
                      ": ");
}

std::string ExplainText(const Json& needs) {
  const Json& target = At(needs, "target");
  std::string text = absl::StrCat(
      "which build: frame version ", Text(needs, "frame_version"),
      " (this build: ", Text(needs, "frame_version_of_this_build"), "); ",
      IsTrue(needs, "this_build_reads_it")
          ? "this build reads all that is required\n"
          : "this build does NOT read all that is required\n");
  std::vector<Row> rows = {
      {"section", "count", "version", "required", "this build", "result"}};
  for (const Json& section : At(needs, "sections")) {
    rows.push_back({Text(section, "section"), Text(section, "count"),
                    Text(section, "version"), Text(section, "required"),
                    Text(section, "this_build"), Text(section, "result")});
  }
  if (rows.size() > 1) text += TableText(rows, "  ");
  if (target.is_null()) return text;
  text += "which target:\n";
  absl::StrAppend(
      &text,
      TableText(
          {{"protocol version", Text(target, "protocol_version") + " or later"},
           {"features granted", Text(target, "features")},
           {"highest VP", Text(target, "highest_vp") + " or higher"},
           {"guest RAM", Text(target, "ram_pages") + " pages or more"}},
          "  "));
  for (const Json& limit : At(target, "limits_above_default")) {
    absl::StrAppend(&text, "  ", Text(limit, "limit"), " of ",
                    Text(limit, "needed"),
                    " or more (default: ", Text(limit, "default"), ")\n");
  }
  text += ListText(At(target, "devices"), "  ", "devices of open channels",
                   {{"device", "device"},
                    {"interface_type", "type"},
                    {"interface_instance", "instance"},
                    {"sub_channel_index", "sub"}});
  return text;
}

}  // namespace

std::string ValueText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "none";
  if (value.is_object() && value.contains("listed")) {
    return Text(value, "count");
  }
  if (value.is_object() && value.contains("format")) return DeviceText(value);
  std::vector<std::string> parts;
  if (value.is_object()) {
    // Content that is not shown.
    if (value.size() == 1 && value.contains("bytes")) {
      return Text(value, "bytes");
    }
    for (const auto& [key, each] : value.items()) {
      parts.push_back(absl::StrCat(key, " ", ValueText(each)));
    }
    return absl::StrJoin(parts, ", ");
  }
  if (value.is_array()) {
    for (const Json& each : value) parts.push_back(ValueText(each));
    return absl::StrJoin(parts, ", ");
  }
  return value.dump();
}

std::string TableText(const std::vector<Row>& rows, const std::string& indent) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const Row& row : rows) {
    text += indent;
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      // No blanks at the end of a line.
      if (i + 1 < row.size()) text.append(widths[i] - row[i].size() + 2, ' ');
    }
    text += "\n";
  }
  return text;
}

std::string InspectText(const Json& model) {
  std::string text = FrameText(At(model, "frame"));
  if (const Json& seal = At(model, "seal"); !seal.is_null()) {
    absl::StrAppend(&text, "  sealed      ", ValueText(seal),
                    "; not checked here\n");
  }
  const Json& sections = At(model, "sections");
  if (Number(sections, "count") == 0) return text;
  absl::StrAppend(&text, "\n", ConnectionText(At(model, "connection")));
  const Json& channels = At(model, "channels");
  for (const Json& channel : At(channels, "listed")) {
    absl::StrAppend(&text, "\n", ChannelText(channel));
  }
  if (Number(channels, "rest") != 0) {
    absl::StrAppend(&text, "\nand ", Number(channels, "rest"),
                    " more channels; --all shows them\n");
  }
  absl::StrAppend(&text, "\n",
                  ListText(sections, "", "sections",
                           {{"section", "section"},
                            {"instance", "instance"},
                            {"version", "version"},
                            {"required", "required"},
                            {"known", "known"},
                            {"offset", "offset"},
                            {"bytes", "bytes"},
                            {"body", "body"}}));
  return text;
}

std::string ValidateText(const Json& model) {
  std::string text;
  const Json& findings = At(model, "findings");
  for (const Json& finding : At(findings, "listed")) {
    absl::StrAppend(&text, Text(finding, "severity"), ": ", PlaceText(finding),
                    Text(finding, "problem"),
                    "\n  do: ", Text(finding, "action"), "\n");
  }
  if (Number(findings, "rest") != 0) {
    absl::StrAppend(&text, "and ", Number(findings, "rest"),
                    " more; --all shows them\n");
  }
  if (const Json& needs = At(model, "explain"); !needs.is_null()) {
    text += ExplainText(needs);
  }
  absl::StrAppend(&text, IsTrue(model, "valid") ? "valid" : "INVALID", ": ",
                  Counted(Number(model, "errors"), "error", "errors"), ", ",
                  Counted(Number(findings, "count") - Number(model, "errors"),
                          "note", "notes"),
                  "\n");
  return text;
}

std::string DiffText(const Json& model) {
  if (IsTrue(model, "same")) return "same\n";
  std::string text;
  const Json& differences = At(model, "differences");
  for (const Json& difference : At(differences, "listed")) {
    const std::string change = Text(difference, "change");
    absl::StrAppend(&text,
                    change == "added"     ? "+ "
                    : change == "removed" ? "- "
                                          : "~ ",
                    Text(difference, "where"), ": ");
    if (change != "added") text += Text(difference, "before");
    if (change == "changed") text += " -> ";
    if (change != "removed") text += Text(difference, "after");
    text += "\n";
  }
  if (Number(differences, "rest") != 0) {
    absl::StrAppend(&text, "and ", Number(differences, "rest"),
                    " more; --all shows them\n");
  }
  absl::StrAppend(
      &text, Counted(Number(differences, "count"), "difference", "differences"),
      "\n");
  return text;
}

}  // namespace ferrybus::state_tool
