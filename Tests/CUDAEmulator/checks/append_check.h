void check_append(uint64_t) {}
