package main

func (rep *report) writeHTML(path string) error        { return nil }
func (rep *report) writeCharts(path string) error      { return nil }
func (rep *report) writeReadme(path, svg string) error { return nil }
func splitReadme(path string) (string, string, error)  { return "", "", nil }
