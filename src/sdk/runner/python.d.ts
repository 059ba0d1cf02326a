/** Imported `with { type: "text" }`: the file's text. */
declare module "*.py" {
  const text: string;
  export default text;
}
