// A Firestore for tests, in memory (npm: @firestore-emulator/server). Argument: the port.
const require_ = require("module").createRequire(process.cwd() + "/"); // modules are where we run
const { FirestoreServer } = require_("@firestore-emulator/server");
const { ServerCredentials } = require_("@grpc/grpc-js");
const emulator = new FirestoreServer();
const write = emulator.state.writeV1Document.bind(emulator.state);
emulator.state.writeV1Document = (date, asked) => {
  const result = write(date, asked);
  const answer = result.toObject();
  // The emulator adds, but does not tell the sums as Firestore does.
  const sum = (path) => emulator.state.getDocument(asked.update.name).getField(path).value;
  answer.transform_results = asked.update_transforms.filter((transform) => transform.has_increment)
    .map((transform) => ({ integer_value: sum(transform.field_path) }));
  result.toObject = () => answer;
  return result;
};
emulator.server.bindAsync(`127.0.0.1:${process.argv[2]}`, ServerCredentials.createInsecure(), (error) => { if (error) throw error; });
