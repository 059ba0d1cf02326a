import { expect, test } from "bun:test";
import { readReport } from "./junit.ts";

test("counts and names the test cases of a report", () => {
  const report = readReport(`<?xml version="1.0"?>
<testsuites name="bun test" tests="4" failures="1" skipped="1">
  <testsuite name="x.test.ts">
    <testcase name="a &lt;one&gt; &amp; &quot;two&quot;" classname="" time="0" />
    <testsuite name="inner">
      <testcase name="bad" classname="inner" time="0">
        <failure type="AssertionError" message="1&#10;2">text &lt;/testcase&gt;</failure>
      </testcase>
      <testcase name="left out" classname="inner" time="0">
        <skipped />
      </testcase>
      <testcase name="good" classname="inner" time="0" />
    </testsuite>
  </testsuite>
</testsuites>`);
  expect(report).toEqual({ passed: 2, failed: ["inner > bad"], skipped: ["inner > left out"] });
});
